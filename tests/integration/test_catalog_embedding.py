"""`store.index.embed` becomes an index that the store can use."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

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


async def test_an_async_function_of_the_project_makes_vectors() -> None:
    index = await store_index(read_project(BASIC))
    assert index is not None
    assert (index.dims, index.fields, index.name) == (8, ("$",), "./embed.py:embed")
    near, far, query = await index.embed(["hhh", "aaa", "h"])
    assert math.dist(near, query) < math.dist(far, query)


@pytest.mark.parametrize(
    "text",
    [
        "def embed(texts): return [[1.0, float(len(text))] for text in texts]",
        """from langchain_core.embeddings import Embeddings
class Pairs(Embeddings):
    def embed_documents(self, texts): return [[1.0, float(len(text))] for text in texts]
    def embed_query(self, text): return self.embed_documents([text])[0]
embed = Pairs()""",
    ],
    ids=["sync", "embeddings"],
)
async def test_a_sync_function_or_embeddings_of_langchain_will_do(tmp_path: Path, text: str) -> None:
    index = await store_index(with_embed(tmp_path, "./e.py:embed", text))
    assert index is not None
    assert [len(vector) for vector in await index.embed(["a", "bb"])] == [2, 2]


async def test_a_provider_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.index\.embed is 'nobody:model', which cannot be loaded"):
        await store_index(with_embed(tmp_path, "nobody:model"))


async def test_an_index_of_pgvector_takes_only_so_many_dimensions(tmp_path: Path) -> None:
    project = with_embed(tmp_path, "./e.py:embed", "def embed(texts): ...")
    keys = {**project.raw, "store": {"index": {"dims": 3072, "embed": "./e.py:embed"}}}
    keys["waystation"] = {"store": {"vectors": {"index": "hnsw"}}}
    (tmp_path / "langgraph.json").write_text(json.dumps(keys), encoding="utf-8")
    with pytest.raises(ConfigError, match="at most 2000 dimensions"):
        await store_index(read_project(tmp_path))
    keys["waystation"] = {"store": {"vectors": {"index": "hnsw", "type": "halfvec", "distance": "l2"}}}
    (tmp_path / "langgraph.json").write_text(json.dumps(keys), encoding="utf-8")
    index = await store_index(read_project(tmp_path))
    assert index is not None
    assert (index.kind, index.vector_type, index.distance) == ("hnsw", "halfvec", "l2")


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
