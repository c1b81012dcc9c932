"""Paths of `extract` in thread searches."""

from __future__ import annotations

import pytest

from waystation.errors import InvalidRequest
from waystation.runs.extract import parse_extract


@pytest.mark.parametrize(
    ("path", "root", "steps"),
    [
        ("values", "values", []),
        ("values.messages[-1].content", "values", ["messages", "-1", "content"]),
        ("metadata.a b.é", "metadata", ["a b", "é"]),
        ("values[0][12]", "values", ["0", "12"]),
        ("interrupts.task-id[0].value", "interrupts", ["task-id", "0", "value"]),
    ],
)
def test_paths_become_steps(path: str, root: str, steps: list[str]) -> None:
    assert parse_extract({"x": path}) == [{"alias": "x", "root": root, "path": steps}]


@pytest.mark.parametrize("path", ["", ".", "secret.y", "valuesx", "status", "[0]"])
def test_paths_begin_with_a_root(path: str) -> None:
    with pytest.raises(InvalidRequest, match="must start with one of: config, interrupts, metadata, values"):
        parse_extract({"x": path})


@pytest.mark.parametrize(
    "path", ["values.", "values..a", "values[", "values[]", "values[a]", "values[1", "values.a[9999999999]"]
)
def test_malformed_paths_say_where(path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"malformed at character \d+"):
        parse_extract({"x": path})
