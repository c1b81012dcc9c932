"""Each method of the SDK's assistants, used."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError

from e2e.sdk_entries import covers
from live_server import Client


async def made(sdk: Client, **given: Any) -> dict[str, Any]:
    return await sdk.assistants.create("steps", **given)


@covers(
    "assistants.create",
    *("graph_id", "config", "metadata", "assistant_id", "if_exists", "name", "description"),
)
async def an_assistant_is_made_as_told(sdk: Client) -> None:
    chosen = str(uuid.uuid4())
    given: dict[str, Any] = {"metadata": {"team": "x"}, "assistant_id": chosen, "name": "mine", "description": "Counts"}
    first = await sdk.assistants.create("steps", config={"tags": ["t"]}, **given)
    assert {name: first[name] for name in given} == given
    assert (first["graph_id"], first["version"], first["config"]["tags"]) == ("steps", 1, ["t"])
    assert await sdk.assistants.create("steps", assistant_id=chosen, if_exists="do_nothing") == first
    with pytest.raises(ConflictError):
        await sdk.assistants.create("steps", assistant_id=chosen, if_exists="raise")


@covers("assistants.create", "context")
async def an_assistants_context_reaches_its_runs(sdk: Client) -> None:
    assistant = await sdk.assistants.create("echo", context={"model_name": "big"})
    assert assistant["context"] == {"model_name": "big"}
    values = await sdk.runs.wait(None, assistant["assistant_id"], input={})
    assert values["seen"]["context"] == {"model_name": "big"}


@covers("assistants.get", "assistant_id")
async def an_assistant_is_got(sdk: Client) -> None:
    assistant = await made(sdk, name="got")
    assert await sdk.assistants.get(assistant["assistant_id"]) == assistant
    with pytest.raises(NotFoundError):
        await sdk.assistants.get(str(uuid.uuid4()))


@covers("assistants.delete", "assistant_id", "delete_threads")
async def an_assistant_is_deleted_with_or_without_its_threads(sdk: Client) -> None:
    for delete_threads in (False, True):
        assistant_id = (await made(sdk))["assistant_id"]
        thread_id = (await sdk.threads.create())["thread_id"]
        await sdk.runs.wait(thread_id, assistant_id, input={"n": 0})
        await sdk.assistants.delete(assistant_id, delete_threads=delete_threads)
        with pytest.raises(NotFoundError):
            await sdk.assistants.get(assistant_id)
        assert bool(await sdk.threads.search(ids=[thread_id])) is not delete_threads


@covers("assistants.update", "assistant_id", "graph_id", "config", "metadata", "name", "description")
async def an_assistants_new_version_has_what_changed(sdk: Client) -> None:
    assistant_id = (await made(sdk, metadata={"a": 1}))["assistant_id"]
    given: dict[str, Any] = {"graph_id": "echo", "name": "renamed", "description": "new"}
    second = await sdk.assistants.update(assistant_id, config={"tags": ["u"]}, metadata={"b": 2}, **given)
    assert {name: second[name] for name in given} == given
    assert (second["version"], second["metadata"], second["config"]["tags"]) == (2, {"a": 1, "b": 2}, ["u"])


@covers("assistants.update", "context")
async def an_assistants_context_is_replaced(sdk: Client) -> None:
    assistant = await sdk.assistants.create("echo", context={"model_name": "big"})
    second = await sdk.assistants.update(assistant["assistant_id"], context={"temperature": 0.5})
    assert second["context"] == {"temperature": 0.5}


@covers("assistants.get_versions", "assistant_id", "metadata", "limit", "offset")
async def versions_are_listed_newest_first(sdk: Client) -> None:
    assistant_id = (await made(sdk))["assistant_id"]
    for n in (2, 3):
        await sdk.assistants.update(assistant_id, metadata={f"v{n}": n})

    async def listed(**asked: Any) -> list[int]:
        return [version["version"] for version in await sdk.assistants.get_versions(assistant_id, **asked)]

    assert await listed() == [3, 2, 1]
    assert await listed(limit=1, offset=1) == [2]
    assert await listed(metadata={"v3": 3}) == [3]


@covers("assistants.set_latest", "assistant_id", "version")
async def an_old_version_becomes_the_latest(sdk: Client) -> None:
    assistant_id = (await made(sdk, name="one"))["assistant_id"]
    await sdk.assistants.update(assistant_id, name="two")
    back = await sdk.assistants.set_latest(assistant_id, 1)
    assert (back["version"], back["name"]) == (1, "one")
    assert (await sdk.assistants.get(assistant_id))["name"] == "one"


@covers(
    "assistants.search",
    *("metadata", "graph_id", "name", "limit", "offset", "sort_by", "sort_order", "select", "response_format"),
)
async def assistants_are_searched_sorted_and_paged(sdk: Client) -> None:
    mark = uuid.uuid4().hex
    for n in range(3):
        await made(sdk, name=f"{mark} {n}", metadata={"mark": mark})
    asked: dict[str, Any] = {"metadata": {"mark": mark}, "select": ["name"], "sort_by": "name", "sort_order": "asc"}
    names = [{"name": f"{mark} {n}"} for n in range(3)]
    assert await sdk.assistants.search(graph_id="steps", **asked) == names
    assert await sdk.assistants.search(limit=2, offset=1, **asked) == names[1:]
    assert await sdk.assistants.search(graph_id="echo", **asked) == []
    assert await sdk.assistants.search(name=f"{mark} 1", select=["name"]) == names[1:2]
    paged = await sdk.assistants.search(limit=2, response_format="object", **asked)
    assert paged == {"assistants": names[:2], "next": "2"}


@covers("assistants.count", "metadata", "graph_id", "name")
async def assistants_are_counted(sdk: Client) -> None:
    mark = uuid.uuid4().hex
    for n in range(2):
        await made(sdk, name=f"{mark} {n}", metadata={"mark": mark})
    assert await sdk.assistants.count(metadata={"mark": mark}) == 2
    assert await sdk.assistants.count(metadata={"mark": mark}, graph_id="echo") == 0
    assert await sdk.assistants.count(name=f"{mark} 1", graph_id="steps") == 1


@covers("assistants.get_graph", "assistant_id", "xray")
async def a_graph_is_drawn_from_outside_and_inside(sdk: Client) -> None:
    plain = await sdk.assistants.get_graph("nested")
    assert [node["id"] for node in plain["nodes"]] == ["__start__", "before", "child", "__end__"]
    for xray, deepest in ((1, "child:grandchild"), (True, "child:grandchild:inner_model")):
        inside = await sdk.assistants.get_graph("nested", xray=xray)
        assert {"child:child_ask", deepest} <= {node["id"] for node in inside["nodes"]}


@covers("assistants.get_schemas", "assistant_id")
async def a_graph_is_described(sdk: Client) -> None:
    assistant = await sdk.assistants.create("echo")
    schemas = await sdk.assistants.get_schemas(assistant["assistant_id"])
    assert schemas["graph_id"] == "echo"
    assert set(schemas["context_schema"]["properties"]) == {"model_name", "temperature"}
    assert set(schemas["input_schema"]["properties"]) == {"seen", "anything"}


@covers("assistants.get_subgraphs", "assistant_id", "namespace", "recurse")
async def subgraphs_are_described(sdk: Client) -> None:
    assistant_id = (await sdk.assistants.create("nested"))["assistant_id"]
    assert set(await sdk.assistants.get_subgraphs(assistant_id)) == {"child"}
    assert set(await sdk.assistants.get_subgraphs(assistant_id, recurse=True)) == {"child", "child|grandchild"}
    named = await sdk.assistants.get_subgraphs(assistant_id, namespace="child", recurse=True)
    assert "child" in named
