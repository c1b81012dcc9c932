"""`store.index.embed` becomes a function that the store can call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.store.memory import InMemoryStore

from integration.catalog_projects import BASIC, clean_imports
from waystation.catalog import Project, read_project, store_index
from waystation.errors import ConfigError

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _imports() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    with clean_imports():
        yield


def with_embed(root: Path, embed: str, text: str = "") -> Project:
    (root / "e.py").write_text(text, encoding="utf-8")
    keys = {"graphs": {"g": "./g.py:g"}, "dependencies": ["."], "store": {"index": {"dims": 2, "embed": embed}}}
    (root / "langgraph.json").write_text(json.dumps(keys), encoding="utf-8")
    return read_project(root)


async def test_an_async_function_of_the_project_finds_what_is_near() -> None:
    index = await store_index(read_project(BASIC))
    assert index is not None
    assert (index.get("dims"), index.get("fields")) == (8, ["$"])
    store = InMemoryStore(index=index)
    for text in ("aaa", "hhh"):
        await store.aput(("texts",), text, {"text": text})

    found = await store.asearch(("texts",), query="h", limit=1)

    assert [item.key for item in found] == ["hhh"]


async def test_a_provider_is_left_to_the_store(tmp_path: Path) -> None:
    index = await store_index(with_embed(tmp_path, "openai:text-embedding-3-small"))
    assert index is not None
    assert index.get("embed") == "openai:text-embedding-3-small"


async def test_without_an_index_there_is_nothing_to_load(tmp_path: Path) -> None:
    project = with_embed(tmp_path, "./e.py:embed")
    bare = Project(root=tmp_path, config_path=None, graphs=project.graphs)
    assert await store_index(bare) is None


@pytest.mark.parametrize(
    ("embed", "text", "reason"),
    [
        ("./e.py:embed", "embed = 3", "expected a function, found a int"),
        ("./e.py:embed", "1 / 0", r"e\.py, line 1: ZeroDivisionError"),
        ("./e.py:embde", "def embed(texts): ...", "did you mean 'embed'"),
    ],
)
async def test_a_function_that_cannot_be_used_is_refused(tmp_path: Path, embed: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        await store_index(with_embed(tmp_path, embed, text))
