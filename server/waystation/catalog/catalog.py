"""The graphs that this server serves: loaded once at the start, opened for every run and every reading.

Everything here runs on the graph loop, for it is the user's code. A plain graph is prepared once and shared by all
runs: opening it costs nothing. A factory is called each time it is opened, and left afterwards.
"""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import cast
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk.auth.types import BaseUser
from langgraph_sdk.runtime import AccessContext

from waystation.catalog.factories import (
    Access,
    Builder,
    Factory,
    Graph,
    in_thread,
    is_factory,
    not_a_graph,
    read_factory,
)
from waystation.catalog.importing import Importer
from waystation.catalog.project import Project
from waystation.catalog.spec import GraphSpec
from waystation.errors import ConfigError, NotFound
from waystation_db.store import PostgresStore
from waystation_db.tenants import DEFAULT_TENANT

NOT_WATCHED = frozenset(
    {
        ".git",
        ".venv",
        "venv",
        "node_modules",
        ".waystation",
        "__pycache__",
        ".pytest_cache",
        ".ruff_cache",
        ".mypy_cache",
    }
)
"""Folders where a change is no change of the project."""

_ASSISTANTS = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
_TENANTS = 1024  # copies of graphs for tenants that are kept
_THREADS = 32  # sync factories at a time; a slow one holds up others only when this many are slow


@cache
def default_assistant_id(graph_id: str) -> UUID:
    """The id of the assistant that every graph has from the start; clients may use the graph's name for it."""
    return uuid5(_ASSISTANTS, graph_id)


class Catalog:
    """The loaded graphs of a project. Made by `await Catalog.load(project, store=store)`."""

    def __init__(self, project: Project, graphs: Mapping[str, Graph | Factory], store: BaseStore) -> None:
        self.project = project
        self._graphs = graphs
        self._store = store
        self._of_tenants: OrderedDict[tuple[str, str], Graph] = OrderedDict()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="waystation-factory")

    @classmethod
    async def load(cls, project: Project, *, store: BaseStore) -> Catalog:
        """Import all graphs of the project, in a thread: modules may block, or call `asyncio.run`. Calls no factory.

        Raises:
            ConfigError: a graph cannot be loaded; the message says which, where and why.
        """
        importer = Importer(project.root, project.folders)
        with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
            graphs = await in_thread(executor, lambda: _load_all(project, importer, store))
        return cls(project, graphs, store)

    @property
    def graph_ids(self) -> tuple[str, ...]:
        """In the order of the project."""
        return tuple(self._graphs)

    def description(self, graph_id: str) -> str | None:
        """What the project says about the graph. Raises NotFound for an unknown one."""
        self._entry(graph_id)
        return self.project.graphs[graph_id].description

    def open(
        self,
        graph_id: str,
        *,
        access: AccessContext,
        config: RunnableConfig,
        tenant_id: str = DEFAULT_TENANT,
        user: BaseUser | None = None,
        context: object = None,
    ) -> AbstractAsyncContextManager[Graph]:
        """The graph, with the tenant's store and without a checkpointer of its own, until the block is left.

        Give the checkpointer in `config["configurable"]["__pregel_checkpointer"]` of the call on the graph. `config`
        here, `user` (default: the one in `config`) and `context` (of a run) are what a factory may ask for.

        Raises:
            NotFound: unknown graph, at once.
            Whatever a factory raises, TypeError if it makes no graph: on entering.
        """
        entry = self._entry(graph_id)
        if isinstance(entry, Pregel):
            return nullcontext(entry if tenant_id == DEFAULT_TENANT else self._of_tenant(graph_id, entry, tenant_id))
        user = user or cast(BaseUser | None, (config.get("configurable") or {}).get("langgraph_auth_user"))
        return self._opened(graph_id, entry, Access(access, config, self._store_of(tenant_id), user, context))

    def watched_paths(self) -> tuple[Path, ...]:
        """Every folder whose files make up the project, each by itself: watch them non-recursively."""
        roots = {self.project.root, *self.project.folders}
        top = [root for root in roots if not any(root != other and root.is_relative_to(other) for other in roots)]
        return tuple(sorted(folder for root in top for folder in _folders(root)))

    async def close(self) -> None:
        """Let go of the threads. Does not wait for a factory that is still busy in one."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _of_tenant(self, graph_id: str, graph: Graph, tenant_id: str) -> Graph:
        """The graph with a tenant's store; kept, for what is known of a graph is known by its identity."""
        kept = self._of_tenants.get((graph_id, tenant_id))
        if kept is None:
            kept = copy.copy(graph)
            kept.store = self._store_of(tenant_id)
            self._of_tenants[graph_id, tenant_id] = kept
        self._of_tenants.move_to_end((graph_id, tenant_id))
        if len(self._of_tenants) > _TENANTS:
            self._of_tenants.popitem(last=False)
        return kept

    def _store_of(self, tenant_id: str) -> BaseStore:
        if tenant_id == DEFAULT_TENANT:
            return self._store
        if isinstance(self._store, PostgresStore):
            return self._store.of(tenant_id)
        raise RuntimeError(f"{type(self._store).__name__} knows no tenants, and would show {tenant_id!r} everything")

    def _entry(self, graph_id: str) -> Graph | Factory:
        try:
            return self._graphs[graph_id]
        except KeyError:
            raise NotFound(f"Graph {graph_id!r} not found; this server has: {', '.join(self._graphs)}") from None

    @asynccontextmanager
    async def _opened(self, graph_id: str, factory: Factory, access: Access) -> AsyncGenerator[Graph]:
        async with factory.open(access, executor=self._executor) as made:
            yield _prepare(graph_id, made, access.store)


def _load_all(project: Project, importer: Importer, store: BaseStore) -> dict[str, Graph | Factory]:
    importer.extend_path()
    return {graph_id: _load(spec, importer, store) for graph_id, spec in project.graphs.items()}


def _load(spec: GraphSpec, importer: Importer, store: BaseStore) -> Graph | Factory:
    what = f"graph {spec.graph_id!r}"
    found = importer.load(spec.target, what=what)
    try:
        if isinstance(found, Pregel | StateGraph):
            return _prepare(spec.graph_id, cast(Graph | Builder, found), store)
        if is_factory(found):
            return read_factory(found)
        reason = not_a_graph(found)
    except ConfigError as e:
        reason = e.message
    except Exception as e:  # a builder that does not compile: the user's mistake, told like one in their module
        reason = importer.reason(e)
    raise ConfigError(f"{what} ({spec.target.text}) cannot be loaded: {reason}")


def _prepare(graph_id: str, made: Graph | Builder, store: BaseStore) -> Graph:
    """A copy to run: the user's object stays as it is, for it may be a subgraph too, or shared by a factory's calls."""
    if isinstance(made, StateGraph):
        made = cast(Graph, made.compile())  # pyright: ignore[reportUnknownMemberType]  # partly untyped in the library
    graph = copy.copy(made)
    graph.store = store
    graph.checkpointer = None
    if graph.name == "LangGraph":  # nobody named it
        graph.name = graph_id
    return graph


def _folders(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, children, _ in os.walk(root):
        children[:] = [c for c in children if c not in NOT_WATCHED and not c.endswith(".egg-info")]
        found.append(Path(folder))
    return found
