"""Named SQL blocks: how a query file is read, and what is refused at import."""

import pytest

from waystation_db.sql import Queries, load, parse

_FILE = """-- Queries of a test.

-- name: first
-- Says 100% of what it does.
select 1
  -- an inner remark: 50%
  from t where a = %(a)s;

-- name: second
-- Does more.
select 2
"""


def test_blocks_are_found_by_name_without_their_comments() -> None:
    statements = parse(_FILE, "test")
    assert statements == {"first": "select 1\n  from t where a = %(a)s", "second": "select 2"}


def test_names_are_items_and_attributes() -> None:
    queries = Queries("test", parse(_FILE, "test"))
    assert queries.second == queries["second"] == "select 2"
    assert list(queries) == ["first", "second"]


def test_unknown_name_is_an_error_that_names_file_and_name() -> None:
    queries = Queries("test", parse(_FILE, "test"))
    with pytest.raises(KeyError, match=r"queries/test\.sql has no statement named 'third'"):
        queries["third"]
    with pytest.raises(AttributeError, match="third"):
        _ = queries.third


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: a\nselect 1\n-- name: a\nselect 2", "a is there twice"),
        ("-- name: a\n-- Only talk.\n", "a has no statement"),
        ("select 1;\n-- name: a\nselect 1", "before the first"),
        ("-- name: Claim\nselect 1", "not a lower-case identifier"),
    ],
)
def test_malformed_file_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text, "test")


def test_missing_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no queries/nothing\.sql"):
        load("nothing")


def test_file_of_the_package_is_loaded_once() -> None:
    assert load("migrate") is load("migrate")
    assert "try_lock" in load("migrate")
