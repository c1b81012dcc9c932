"""Semantic search in the store: the function that `store.index.embed` names, ready for the store to use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from langchain_core.embeddings import Embeddings
from langgraph.store.base.embed import AEmbeddingsFunc, EmbeddingsFunc, ensure_embeddings

from waystation.catalog.factories import in_thread
from waystation.catalog.importing import Importer
from waystation.catalog.keys import IndexKeys
from waystation.catalog.keys_own import VectorKeys
from waystation.catalog.project import Project
from waystation.catalog.spec import parse_spec
from waystation.errors import ConfigError
from waystation_db.store_vectors import MAX_INDEXED_DIMS, StoreIndex


async def store_index(project: Project) -> StoreIndex | None:
    """What a store needs for `store.index`; None without one. Imports the user's file, in a thread.

    `embed` is a function in a file (`./embed.py:embed`, sync or async, texts to vectors), such a file's LangChain
    embeddings, or `<provider>:<model>`, which LangChain makes.

    Raises:
        ConfigError: the function cannot be loaded, or is none; pgvector cannot index so many dimensions.
    """
    keys = project.store.index if project.store else None
    if keys is None:
        return None
    vectors = project.waystation.store.vectors
    _check_dims(keys, vectors)
    make = _of_file if ".py:" in keys.embed else _of_provider
    with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
        embeddings = await in_thread(executor, lambda: make(project, keys))

    async def embed(texts: list[str]) -> list[list[float]]:
        try:
            return await embeddings.aembed_documents(texts)
        except (SystemExit, KeyboardInterrupt) as error:  # the user's code, which must not end this loop
            raise RuntimeError(f"store.index.embed asked the process to end: {type(error).__name__}") from None

    return StoreIndex(
        dims=keys.dims,
        embed=embed,
        name=keys.embed,
        fields=keys.fields,
        kind=vectors.index,
        distance=vectors.distance,
        vector_type=vectors.type,
    )


def _check_dims(keys: IndexKeys, vectors: VectorKeys) -> None:
    limit = MAX_INDEXED_DIMS[vectors.type]
    if vectors.index != "flat" and keys.dims > limit:
        raise ConfigError(
            f"waystation.store.vectors.index is {vectors.index!r}, which takes at most {limit} dimensions of type "
            f"{vectors.type!r}, and store.index.dims is {keys.dims}: expected 'flat', or the type 'halfvec'"
        )


def _of_provider(_project: Project, keys: IndexKeys) -> Embeddings:
    try:
        return ensure_embeddings(keys.embed)
    except Exception as error:  # LangChain, or the provider's package: not there, or not content with what it found
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"store.index.embed is {keys.embed!r}, which cannot be loaded: {reason}") from error


def _of_file(project: Project, keys: IndexKeys) -> Embeddings:
    importer = Importer(project.root, project.folders)
    importer.extend_path()
    spec = parse_spec("store.index.embed", keys.embed, root=project.root)
    found = importer.load(spec, what="store.index.embed")
    if isinstance(found, Embeddings):
        return found
    if not callable(found):
        raise ConfigError(f"store.index.embed is {keys.embed!r}: expected a function, found a {type(found).__name__}")
    function: Callable[..., object] = found
    return ensure_embeddings(_as_embedding(function))


def _as_embedding(function: Callable[..., object]) -> EmbeddingsFunc | AEmbeddingsFunc:
    return function  # pyright: ignore[reportReturnType]  # the user's; what it returns is checked each time
