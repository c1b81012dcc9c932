"""Assistants through the official client, and what their configuration does to runs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError

from live_server import Client

pytestmark = pytest.mark.anyio

NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


async def test_every_graph_has_an_assistant_of_its_own(sdk: Client) -> None:
    expected = str(uuid.uuid5(NAMESPACE, "steps"))
    (found,) = await sdk.assistants.search(graph_id="steps", metadata={"created_by": "system"})
    assert (found["assistant_id"], found["name"], found["version"]) == (expected, "steps", 1)
    assert await sdk.assistants.get(expected) == found


async def test_a_graph_is_drawn_and_described(sdk: Client) -> None:
    drawing = await sdk.assistants.get_graph("steps")
    assert [node["id"] for node in drawing["nodes"]] == ["__start__", "a", "b", "__end__"]
    assert {(edge["source"], edge["target"]) for edge in drawing["edges"]} == {
        ("__start__", "a"),
        ("a", "b"),
        ("b", "__end__"),
    }
    inside = await sdk.assistants.get_graph("nested", xray=True)
    assert "child:child_ask" in {node["id"] for node in inside["nodes"]}
    assistant_id = str(uuid.uuid5(NAMESPACE, "echo"))
    schemas = await sdk.assistants.get_schemas(assistant_id)
    assert set(schemas["context_schema"]["properties"]) == {"model_name", "temperature"}
    nested = str(uuid.uuid5(NAMESPACE, "nested"))
    assert set(await sdk.assistants.get_subgraphs(nested, recurse=True)) == {"child", "child|grandchild"}


async def test_an_assistant_is_made_versioned_and_deleted(sdk: Client) -> None:
    made = await sdk.assistants.create("steps", name="mine", metadata={"team": "x"})
    assistant_id = made["assistant_id"]
    with pytest.raises(ConflictError):
        await sdk.assistants.create("steps", assistant_id=assistant_id)
    second = await sdk.assistants.update(assistant_id, name="ours", metadata={"more": 1})
    assert (second["version"], second["metadata"]) == (2, {"team": "x", "more": 1})
    assert [version["version"] for version in await sdk.assistants.get_versions(assistant_id)] == [2, 1]
    first = await sdk.assistants.set_latest(assistant_id, 1)
    assert (first["version"], first["name"]) == (1, "mine")
    await sdk.assistants.delete(assistant_id)
    with pytest.raises(NotFoundError):
        await sdk.assistants.get(assistant_id)


async def test_an_assistants_configuration_reaches_its_runs(sdk: Client, thread_id: str) -> None:
    made = await sdk.assistants.create(
        "echo",
        config={"tags": ["from assistant"], "recursion_limit": 31},
        context={"model_name": "big", "temperature": 0.1},
        metadata={"where": "assistant", "only": "assistant"},
    )
    values: Any = await sdk.runs.wait(
        thread_id, made["assistant_id"], input={}, context={"temperature": 0.9}, metadata={"where": "run"}
    )
    seen = values["seen"]
    assert (seen["config"]["tags"], seen["config"]["recursion_limit"]) == (["from assistant"], 31)
    assert seen["context"] == {"model_name": "big", "temperature": 0.9}
    assert seen["config"]["configurable"]["model_name"] == "big"
    assert (seen["config"]["metadata"]["where"], seen["config"]["metadata"]["only"]) == ("run", "assistant")
    (run,) = await sdk.runs.list(thread_id)
    assert run["assistant_id"] == made["assistant_id"]
    assert run["metadata"]["where"] == "run"
