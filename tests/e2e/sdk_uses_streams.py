"""Each method and attribute of the objects that `threads.stream()` gives, used."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from e2e.sdk_entries import covers
from e2e.sdk_kinds import WITHIN_S, all_of, bare, first_of, until
from e2e.sdk_runs_started import DONE
from eventually import eventually
from live_server import Client

ADD = {"messages": [{"role": "user", "content": "add 2 3"}]}
HI = {"messages": [{"role": "user", "content": "hi"}]}


def is_end(event: Any) -> bool:
    ends = event.get("method") == "lifecycle" and event["params"]["data"]["event"] == "completed"
    return ends and not event["params"]["namespace"]


async def is_interrupted(thread: Any) -> None:
    async def check() -> bool:
        return bare(thread).interrupted

    await eventually(check)


@covers("threads.stream", "thread_id", "assistant_id", "run_start_timeout", "transport")
@covers("stream.thread_id")
@covers("stream.assistant_id")
@covers("stream.output")
async def a_run_is_started_and_ends_over_either_transport(sdk: Client) -> None:
    for transport in ("sse", "websocket"):
        thread_id = str(uuid.uuid4())
        opened = sdk.threads.stream(thread_id, assistant_id="steps", transport=transport, run_start_timeout=WITHIN_S)
        async with opened as thread:
            assert (bare(thread).thread_id, bare(thread).assistant_id) == (thread_id, "steps")
            await thread.run.start(input={"n": 0})
            assert await thread.output == DONE
        assert (await sdk.threads.get_state(thread_id))["values"] == DONE


@covers("stream.run")
@covers("stream.run.start", "input", "config", "metadata", "langsmith_tracing")
async def a_run_is_started_with_what_it_needs(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="echo") as thread:
        given: dict[str, Any] = {"config": {"tags": ["t"], "configurable": {"model_name": "big"}}}
        given |= {"metadata": {"mark": "m"}, "langsmith_tracing": {"project_name": "surface"}}
        run_id = (await thread.run.start(input={"anything": 7}, **given))["run_id"]
        values = await thread.output
        assert (values["anything"], values["seen"]["config"]["tags"]) == (7, ["t"])
        assert values["seen"]["config"]["configurable"]["model_name"] == "big"
        (run,) = await sdk.runs.list(bare(thread).thread_id)
        assert (run["run_id"], run["metadata"]["mark"]) == (run_id, "m")


@covers("stream.run.respond", "response", "interrupt_id")
@covers("stream.interrupted")
@covers("stream.interrupts")
async def a_question_is_answered(sdk: Client) -> None:
    for by_name in (True, False):
        async with sdk.threads.stream(assistant_id="hitl") as thread:
            await thread.run.start(input={"n": 0})
            await is_interrupted(thread)
            (asked,) = bare(thread).interrupts
            (task,) = (await sdk.threads.get_state(bare(thread).thread_id))["tasks"]
            assert [asked["interrupt_id"]] == [interrupt["id"] for interrupt in task["interrupts"]]
            named = {"interrupt_id": asked["interrupt_id"]} if by_name else {}
            await thread.run.respond("yes", **named)
            assert await thread.output == {"log": ["answer=yes", "b"], "n": 2}


@covers("stream.agent")
@covers("stream.agent.get_tree", "xray")
async def the_graph_of_a_stream_is_drawn(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="nested") as thread:
        assert "child" in {node["id"] for node in (await thread.agent.get_tree())["nodes"]}
        assert "child:child_ask" in {node["id"] for node in (await thread.agent.get_tree(xray=True))["nodes"]}


@covers("stream.values")
async def values_come_as_they_become(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="steps") as thread:
        await thread.run.start(input={"n": 0})
        assert (await until(thread.values, lambda values: values == DONE))[-1] == DONE


@covers("stream.values.get", kinds=("sync",))
async def the_last_values_are_got(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="steps") as thread:
        await thread.run.start(input={"n": 0})
        assert await thread.values.get() == DONE


@covers("stream.output.with_timeout", "timeout", kinds=("async",))
async def the_end_is_not_waited_for_too_long(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="slow") as thread:
        run_id = (await thread.run.start(input={"n": 400, "delay": 0.05}))["run_id"]
        with pytest.raises(TimeoutError):
            await thread.output.with_timeout(0.05)
        await sdk.runs.cancel(thread.thread_id, run_id, wait=True)
    async with sdk.threads.stream(assistant_id="slow") as thread:
        await thread.run.start(input={"n": 5, "delay": 0.01})
        assert (await thread.output.with_timeout(WITHIN_S))["ticks"] == list(range(5))


@covers("stream.messages")
async def messages_come_word_by_word(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=HI)
        async with first_of(thread.messages) as message:
            assert await all_of(message.text) == ["You", " said:", " hi"]
            assert (await message.output).usage_metadata["total_tokens"] == 7


@covers("stream.tool_calls")
@covers("tool_call.deltas")
@covers("tool_call.done")
@covers("tool_call.error")
@covers("tool_call.input")
@covers("tool_call.name")
@covers("tool_call.namespace")
@covers("tool_call.output")
@covers("tool_call.tool_call_id")
async def a_tool_is_called(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="agent_all") as thread:
        await thread.run.start(input=ADD)
        async with first_of(thread.tool_calls) as call:
            seen = bare(call)
            assert (seen.name, seen.input, seen.tool_call_id) == ("add", {"a": 2, "b": 3}, "call_1")
            assert (await call.output)["content"] == "5"
            assert await all_of(call.deltas) == []
            assert (seen.done, seen.error, seen.namespace) == (True, None, [])


@covers("stream.subgraphs")
@covers("stream.subagents")
@covers("subgraph.error")
@covers("subgraph.graph_name")
@covers("subgraph.namespace")
@covers("subgraph.path")
@covers("subgraph.status")
@covers("subgraph.trigger_call_id")
async def a_subgraph_is_seen(sdk: Client) -> None:
    for name in ("subgraphs", "subagents"):
        async with sdk.threads.stream(assistant_id="nested") as thread:
            await thread.run.start(input={"n": 0, **HI})
            async with first_of(getattr(thread, name)) as child:
                seen = bare(child)
                assert (seen.graph_name, seen.error) == ("child", None)
                assert seen.status in ("started", "completed")
                assert list(seen.path) == seen.namespace == [f"child:{seen.trigger_call_id}"]
            assert (await thread.output)["log"] == ["before", "before", "child"]


@covers("stream.extensions")
async def what_a_transformer_adds_is_seen(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="steps_all") as thread:
        await thread.run.start(input={"n": 0})
        (shout,) = await until(thread.extensions["shout"], lambda _: True)
        assert shout == {"name": "shout", "payload": "{'HELLO': 'FROM A'}"}


@covers("stream.events")
async def every_event_is_seen(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="steps") as thread:
        await thread.run.start(input={"n": 0})
        events = [event for event in await until(thread.events, is_end) if "seq" in event]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert {"values", "lifecycle"} <= {event["method"] for event in events}


@covers("stream.subscribe", "channels", "namespaces", "depth")
async def chosen_events_are_seen(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="nested_all") as thread:
        await thread.run.start(input={"n": 0, **HI})
        chosen = thread.subscribe(["values", "lifecycle"], namespaces=[[]], depth=0)
        events = await until(chosen, is_end)
        assert {event["method"] for event in events} == {"values", "lifecycle"}
        assert all(event["params"]["namespace"] == [] for event in events)


@covers("stream.interleave_projections", "channels")
async def several_projections_come_as_one(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="agent_all") as thread:
        await thread.run.start(input=ADD)
        seen = await until(
            thread.interleave_projections(["values", "tool_calls", "messages"]),
            lambda pair: pair[0] == "values" and len(pair[1]["messages"]) == 4,
        )
        names = [name for name, _ in seen]
        assert set(names) == {"values", "tool_calls", "messages"}
        assert names.index("tool_calls") < len(names) - 1 - names[::-1].index("messages")


@covers("stream.observe_applied_through_seq", "seq", kinds=("async",))
async def what_a_command_has_done_moves_where_a_stream_goes_on(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="steps") as thread:
        thread.observe_applied_through_seq(0)
        await thread.run.start(input={"n": 0})
        assert await thread.output == DONE


@covers("stream.close")
async def a_closed_stream_starts_nothing(sdk: Client) -> None:
    async with sdk.threads.stream(assistant_id="steps") as thread:
        await thread.run.start(input={"n": 0})
        assert await thread.output == DONE
        await thread.close()
        with pytest.raises(RuntimeError, match="closed"):
            await thread.agent.get_tree()
