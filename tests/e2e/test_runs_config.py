"""What graphs see of a request: configuration, context, headers, the store."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk.errors import BadRequestError

from live_server import Client

pytestmark = pytest.mark.anyio


async def seen(sdk: Client, thread_id: str | None, **options: Any) -> dict[str, Any]:
    return (await sdk.runs.wait(thread_id, "echo", input={}, **options))["seen"]


async def test_configurable_and_context_mirror_each_other(sdk: Client, thread_id: str) -> None:
    by_config = await seen(sdk, thread_id, config={"configurable": {"model_name": "m", "own": 1}})
    by_context = await seen(sdk, thread_id, context={"model_name": "m", "own": 1})
    assert by_config["context"] == by_context["context"] == {"model_name": "m", "own": 1}
    assert by_config["config"]["configurable"]["own"] == by_context["config"]["configurable"]["own"] == 1
    with pytest.raises(BadRequestError, match="context"):
        await sdk.runs.create(thread_id, "echo", input={}, context={"a": 1}, config={"configurable": {"a": 1}})


async def test_the_servers_keys_cannot_be_overwritten(sdk: Client, thread_id: str) -> None:
    ids = ("run_id", "thread_id", "graph_id", "assistant_id", "user_id", "langgraph_auth_user_id")
    forged = dict.fromkeys(ids, "forged")
    found = (await seen(sdk, thread_id, config={"configurable": {**forged, "langgraph_auth_user": {"id": "root"}}}))[
        "config"
    ]["configurable"]
    assert "forged" not in found.values()
    assert (found["thread_id"], found["graph_id"], found["user_id"]) == (thread_id, "echo", "")
    assert (found["langgraph_auth_user"], found["langgraph_auth_user_id"]) == (None, "")


async def test_the_request_id_reaches_the_graph(sdk: Client, thread_id: str) -> None:
    found = await seen(sdk, thread_id, headers={"x-request-id": "asked-by-me"})
    assert found["config"]["configurable"]["langgraph_request_id"] == "asked-by-me"
    other = await seen(sdk, thread_id)
    assert other["config"]["configurable"]["langgraph_request_id"] not in ("", "asked-by-me")


async def test_metadata_is_merged_from_thread_config_and_run(sdk: Client) -> None:
    thread_id = (await sdk.threads.create(metadata={"who": "thread", "thread_only": 1}))["thread_id"]
    found = await seen(
        sdk,
        thread_id,
        config={"metadata": {"who": "config", "config_only": 1}, "tags": ["a", "b"], "recursion_limit": 17},
        metadata={"who": "run"},
    )
    metadata = found["config"]["metadata"]
    assert (metadata["who"], metadata["thread_only"], metadata["config_only"]) == ("run", 1, 1)
    assert (metadata["graph_id"], metadata["thread_id"], metadata["run_attempt"]) == ("echo", thread_id, 1)
    assert (found["config"]["tags"], found["config"]["recursion_limit"]) == (["a", "b"], 17)


async def test_a_run_without_thread_has_the_same_keys(sdk: Client) -> None:
    found = (await seen(sdk, None))["config"]["configurable"]
    assert {"run_id", "thread_id", "graph_id", "assistant_id", "langgraph_request_id"} <= set(found)


async def test_a_graph_uses_the_store(sdk: Client, thread_id: str) -> None:
    assert (await sdk.runs.wait(thread_id, "memory", input={}))["log"] == ["graph wrote this"]
    assert (await seen(sdk, thread_id))["store"] is not None


async def test_null_characters_are_replaced_on_the_way_in(sdk: Client) -> None:
    thread_id = (await sdk.threads.create(metadata={"a\x00b": "c\x00d"}))["thread_id"]
    assert (await sdk.threads.get(thread_id))["metadata"] == {"a\ufffdb": "c\ufffdd"}
    values = await sdk.runs.wait(thread_id, "steps", input={"log": ["x\x00y"]})
    assert values["log"][0] == "x\ufffdy"
