"""The official Python client's thread streams, with each of its projections, over both of its transports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from live_server import Client

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("transport", ["sse", "websocket"])]

ADD = {"messages": [{"role": "user", "content": "add 2 3"}]}
HI = {"messages": [{"role": "user", "content": "hi"}]}
WITHIN_S = 60


async def collect(source: Any, is_last: Callable[[Any], bool]) -> list[Any]:
    """What an iterator gives up to the item that is the last to be read."""
    found: list[Any] = []
    async with asyncio.timeout(WITHIN_S):
        async for item in source:
            found.append(item)
            if is_last(item):
                break
    return found


@asynccontextmanager
async def reading(source: Any) -> AsyncGenerator[Any]:
    """The first item that an iterator gives, while it is read on: what belongs to the item comes that way, too."""
    first = asyncio.get_running_loop().create_future()

    async def read() -> None:
        async for item in source:
            if not first.done():
                first.set_result(item)

    task = asyncio.create_task(read())
    try:
        async with asyncio.timeout(WITHIN_S):
            yield await first
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_output_and_values(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="steps", transport=transport) as thread:
        started = await thread.run.start(input={"n": 0})
        assert uuid.UUID(started["run_id"])
        assert await thread.output.with_timeout(WITHIN_S) == {"log": ["a", "b"], "n": 2}
        values = await collect(thread.values, lambda v: len(v.get("log", ())) == 2)
        assert values[-1] == {"log": ["a", "b"], "n": 2}


async def test_messages_stream_word_by_word(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="chat", transport=transport) as thread:
        await thread.run.start(input=HI)
        async with reading(thread.messages) as message:
            assert [piece async for piece in message.text] == ["You", " said:", " hi"]
            assert (await message.output).usage_metadata["total_tokens"] == 7


async def test_tool_calls(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="agent_all", transport=transport) as thread:
        await thread.run.start(input=ADD)
        async with reading(thread.tool_calls) as call:
            assert (call.name, call.input, call.tool_call_id) == ("add", {"a": 2, "b": 3}, "call_1")
            assert (await call.output)["content"] == "5"


async def test_a_failing_tool_fails_its_call_and_the_run(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="agent_all", transport=transport) as thread:
        await thread.run.start(input={"messages": [{"role": "user", "content": "add 13 3"}]})
        async with reading(thread.tool_calls) as call:
            with pytest.raises(RuntimeError, match="unlucky"):
                await call.output
        with pytest.raises(RuntimeError, match="unlucky"):
            await thread.output.with_timeout(WITHIN_S)


async def test_subgraphs(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="nested", transport=transport) as thread:
        await thread.run.start(input={"n": 0, **HI})
        async with reading(thread.subgraphs) as child:
            assert child.graph_name == "child"
            assert child.status in ("started", "completed")
        assert (await thread.output.with_timeout(WITHIN_S))["log"] == ["before", "before", "child"]


async def test_extensions(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="steps_all", transport=transport) as thread:
        await thread.run.start(input={"n": 0})
        (shout,) = await collect(thread.extensions["shout"], lambda _: True)
        assert shout == {"name": "shout", "payload": "{'HELLO': 'FROM A'}"}


async def test_an_interrupt_is_noticed_and_answered(sdk: Client, transport: str) -> None:
    async with sdk.threads.stream(assistant_id="hitl", transport=transport) as thread:
        await thread.run.start(input={"n": 0})
        before = [values async for values in thread.values]  # ends when something is asked
        # Over SSE the question comes on another connection than the values, and may be there before them.
        assert before[-1] in ({}, {"log": [], "n": 0})
        assert thread.interrupted
        assert (await sdk.threads.get_state(thread.thread_id))["values"] == {"log": [], "n": 0}
        await thread.run.respond("yes")
        assert await thread.output.with_timeout(WITHIN_S) == {"log": ["answer=yes", "b"], "n": 2}


async def test_all_events_and_a_second_run_of_the_same_thread(sdk: Client, transport: str) -> None:
    thread_id = str(uuid.uuid4())
    ends: list[int] = []
    for run in range(2):
        async with sdk.threads.stream(thread_id, assistant_id="steps", transport=transport) as thread:
            await thread.run.start(input={"n": 0})

            def is_last(event: Any, run: int = run) -> bool:
                is_end = event.get("method") == "lifecycle" and event["params"]["data"]["event"] == "completed"
                return is_end and event["seq"] > 5 * run

            events = [event for event in await collect(thread.events, is_last) if "seq" in event]
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            ends.append(events[-1]["seq"])
    assert ends == [5, 10]


async def test_somebody_who_comes_later_finds_the_thread_as_it_is(sdk: Client, transport: str) -> None:
    thread_id = str(uuid.uuid4())
    async with sdk.threads.stream(thread_id, assistant_id="chat", transport=transport) as thread:
        await thread.run.start(input=HI)
        await thread.output.with_timeout(WITHIN_S)
    async with sdk.threads.stream(thread_id, assistant_id="chat", transport=transport) as thread:
        output = await thread.output.with_timeout(WITHIN_S)
        assert output["messages"][-1]["content"] == [{"type": "text", "text": "You said: hi", "index": 0}]


def test_the_client_without_async(sync_sdk: Client, transport: str) -> None:
    with sync_sdk.threads.stream(assistant_id="agent_all", transport=transport) as thread:
        thread.run.start(input=ADD)
        for message in thread.messages:
            if "".join(message.text):
                assert message.output.content[-1]["text"] == "The sum is 5."
                break
