"""The documentation search ranks the passage that is about the question first, and says where it is from."""

from pathlib import Path

import pytest

from docs_search import DocsIndex, docs_index, format_passages, passages_of, search_docs, terms

PAGE = """\
Waystation serves graphs.

# Leases

A worker holds a lease on a run. A lease lasts ten seconds.

# Streams

A client reads events. A worker writes them.

## Reconnecting

Send `Last-Event-ID` to go on where the stream broke off.
"""


@pytest.fixture
def index() -> DocsIndex:
    return DocsIndex(list(passages_of("docs/page.md", PAGE)))


@pytest.mark.parametrize(
    ("query", "heading"),
    [
        ("how long is the lease of a worker?", "Leases"),
        ("last-event-id", "Reconnecting"),
        ("what serves graphs", "docs/page.md"),
        ("STREAMS", "Streams"),
    ],
)
def test_the_best_passage_comes_first(index: DocsIndex, query: str, heading: str) -> None:
    assert index.search(query)[0].heading == heading


@pytest.mark.parametrize("query", ["", "the of and", "xylophone", "\ud800"])
def test_nothing_is_found_for_words_that_do_not_occur(index: DocsIndex, query: str) -> None:
    assert index.search(query) == []


def test_results_are_limited(index: DocsIndex) -> None:
    assert len(index.search("worker lease stream", limit=1)) == 1


def test_an_index_without_pages_finds_nothing(tmp_path: Path) -> None:
    assert docs_index(tmp_path).search("lease") == []


def test_long_sections_are_cut_at_blank_lines() -> None:
    passages = list(passages_of("long.md", "# One\n\n" + "\n\n".join(["word " * 100] * 6)))

    assert len(passages) > 1
    assert {passage.heading for passage in passages} == {"One"}
    assert all(len(passage.text) <= 1200 for passage in passages)


def test_plural_and_singular_are_the_same_term() -> None:
    assert terms("Leases lease status process") == ["lease", "lease", "status", "process"]


def test_every_passage_names_its_file() -> None:
    assert format_passages(list(passages_of("docs/page.md", PAGE))).count("[docs/page.md]") == 4


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("How do I start it with make dev?", "README.md"),
        ("Is a committed step executed twice after a crash?", "docs/guarantees.md"),
        ("What is a lease and what is an attempt?", "docs/concepts.md"),
        ("resume an interrupted run with a command", "docs/quickstart.md"),
        ("langgraph.json dependencies", "docs/configuration.md"),
    ],
)
def test_questions_about_waystation_find_its_own_pages(query: str, page: str) -> None:
    assert f"[{page}]" in search_docs.invoke({"query": query})
