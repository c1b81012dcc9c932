"""Semantic search in the store: the function that `store.index.embed` names, ready for the store to use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import cast

from langgraph.store.base import IndexConfig
from langgraph.store.base.embed import AEmbeddingsFunc, EmbeddingsFunc

from waystation.catalog.factories import in_thread
from waystation.catalog.importing import Importer
from waystation.catalog.keys import IndexKeys
from waystation.catalog.project import Project
from waystation.catalog.spec import parse_spec
from waystation.errors import ConfigError


async def store_index(project: Project) -> IndexConfig | None:
    """What a store needs for `store.index`; None without one. Imports the user's file, in a thread.

    `embed` is a function in a file (`./embed.py:embed`, sync or async, texts to vectors) or `<provider>:<model>`, which
    the store hands to LangChain.

    Raises:
        ConfigError: the function cannot be loaded, or is none.
    """
    keys = project.store.index if project.store else None
    if keys is None:
        return None
    if ".py:" not in keys.embed:
        return IndexConfig(dims=keys.dims, embed=keys.embed, fields=list(keys.fields))
    with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
        embed = await in_thread(executor, lambda: _load(project, keys))
    return IndexConfig(dims=keys.dims, embed=embed, fields=list(keys.fields))


def _load(project: Project, keys: IndexKeys) -> EmbeddingsFunc | AEmbeddingsFunc:
    importer = Importer(project.root, project.folders)
    importer.extend_path()
    spec = parse_spec("store.index.embed", keys.embed, root=project.root)
    found = importer.load(spec, what="store.index.embed")
    if not callable(found):
        raise ConfigError(f"store.index.embed is {keys.embed!r}: expected a function, found a {type(found).__name__}")
    return cast(EmbeddingsFunc, found)
