"""Every form of graph that langgraph.json may name can be opened and run."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import AsyncIterator
from typing import Any, get_type_hints

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import AccessContext

from integration.catalog_projects import FORMS, clean_imports, load, said
from waystation.catalog import Catalog, default_assistant_id
from waystation.errors import NotFound

pytestmark = pytest.mark.anyio


class User:
    identity = "ada"


@pytest.fixture
async def catalog() -> AsyncIterator[Catalog]:
    with clean_imports():
        loaded = await load(FORMS)
        yield loaded
        await loaded.close()
        gc.collect()


@pytest.mark.parametrize(
    ("graph_id", "words"),
    [
        ("compiled", "compiled"),
        ("builder", "builder"),
        ("functional", "functional"),
        ("nothing", "nothing"),
        ("config", "config ['flavor']"),
        ("untyped", "untyped sweet"),
        ("runtime", "threads.create_run nobody none InMemoryStore"),
        ("both", "both threads.create_run ['t']"),
        ("async_builder", "async builder"),
        ("async_manager", "async manager"),
        ("manager", "manager"),
        ("blocking", "off the loop: True"),
        ("module", "agents.chat.graph"),
        ("by_path", "agents.chat.graph"),
        ("packaged", "packaged.graph from a package below src"),
        ("checkpointed", "checkpointed"),
    ],
)
async def test_each_form_runs(catalog: Catalog, graph_id: str, words: str) -> None:
    config: RunnableConfig = {"configurable": {"flavor": "sweet"}, "tags": ["t"]}
    assert await said(catalog, graph_id, config) == words


async def test_a_file_that_no_import_would_find_gets_a_stable_name_of_its_own(catalog: Catalog) -> None:
    name = await said(catalog, "dashed")
    assert name.startswith("project_odd_name_")
    module = importlib.import_module(name)  # as a checkpoint that names a class of it would
    assert get_type_hints(module.State)["more"] == list[str]
    with clean_imports():
        assert name not in sys.modules
        again = await load(FORMS)
        assert await said(again, "dashed") == name
        await again.close()


async def test_two_graphs_of_one_file_share_one_import(catalog: Catalog) -> None:
    origins = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
    assert origins.count(str(FORMS / "graphs.py")) == 1
    assert origins.count(str(FORMS / "agents" / "chat" / "graph.py")) == 1


async def test_a_plain_graph_is_prepared_once_and_without_its_own_checkpointer(catalog: Catalog) -> None:
    async with catalog.open("checkpointed", access="threads.create_run", config={}) as first:
        assert vars(first)["checkpointer"] is None
        assert isinstance(first.store, InMemoryStore)
    async with catalog.open("checkpointed", access="threads.read", config={}) as second:
        assert second is first
    assert importlib.import_module("graphs").checkpointed.checkpointer is not None, "the user's own object was changed"


async def test_a_checkpointer_in_the_config_is_the_one_that_is_used(catalog: Catalog) -> None:
    saver = InMemorySaver()
    config: RunnableConfig = {"configurable": {"thread_id": "1", "__pregel_checkpointer": saver}}
    await said(catalog, "checkpointed", config)
    assert saver.get_tuple({"configurable": {"thread_id": "1"}}) is not None


@pytest.mark.parametrize("graph_id", ["manager", "async_manager"])
async def test_a_context_manager_is_left_when_the_run_is_over(catalog: Catalog, graph_id: str) -> None:
    graphs: Any = importlib.import_module("graphs")
    async with catalog.open(graph_id, access="threads.create_run", config={}):
        assert graphs.entered == [graph_id]
        assert graphs.left == []
    assert graphs.left == [graph_id]


@pytest.mark.parametrize("graph_id", ["manager", "async_manager"])
async def test_a_context_manager_is_left_when_the_run_fails(catalog: Catalog, graph_id: str) -> None:
    with pytest.raises(ValueError, match="the run"):
        async with catalog.open(graph_id, access="threads.create_run", config={}):
            raise ValueError("the run")
    assert importlib.import_module("graphs").left == [graph_id]


async def test_a_context_manager_that_swallows_errors_does_not_hide_that_the_run_failed(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="the run"):
        async with catalog.open("swallowing", access="threads.create_run", config={}):
            raise ValueError("the run")


@pytest.mark.parametrize("access", ["threads.create_run", "threads.update", "threads.read", "assistants.read"])
async def test_a_factory_learns_why_it_is_called_and_sees_a_context_only_in_runs(
    catalog: Catalog, access: AccessContext
) -> None:
    context = {"endpoint": "there"}
    async with catalog.open("runtime", access=access, config={}, user=User(), context=context) as graph:  # pyright: ignore[reportArgumentType]  # as much of a user as it needs
        result = await graph.ainvoke({})  # pyright: ignore[reportUnknownMemberType]  # untyped there
    endpoint = "there" if access == "threads.create_run" else "none"
    assert result["said"] == f"{access} ada {endpoint} InMemoryStore"


async def test_the_user_is_taken_from_the_config_when_not_given(catalog: Catalog) -> None:
    config: RunnableConfig = {"configurable": {"langgraph_auth_user": User()}}
    assert "ada" in await said(catalog, "runtime", config)


async def test_a_factory_does_not_see_what_is_between_library_and_server(catalog: Catalog) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "1", "__pregel_checkpointer": InMemorySaver()}}
    assert await said(catalog, "config", config) == "config ['thread_id']"


async def test_a_factory_that_makes_no_graph_is_told_so(catalog: Catalog) -> None:
    with pytest.raises(TypeError, match="a str is no graph"):
        async with catalog.open("no_graph", access="threads.read", config={}):
            pytest.fail("opened")


async def test_an_unknown_graph_is_not_found_and_the_known_ones_are_named(catalog: Catalog) -> None:
    with pytest.raises(NotFound, match="compiled, builder, functional"):
        catalog.open("compield", access="threads.read", config={})


async def test_descriptions_are_those_of_the_project(catalog: Catalog) -> None:
    assert catalog.description("builder") == "Not compiled yet"
    assert catalog.description("compiled") is None


def test_the_default_assistant_of_a_graph_has_the_id_that_clients_expect() -> None:
    assert str(default_assistant_id("agent")) == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
