"""What the SDK's three ways of starting a run take alike: each scenario is one of `create`, `stream` and `wait`."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from langgraph_sdk.errors import APIStatusError, NotFoundError

from e2e.sdk_entries import covers
from e2e.sdk_kinds import all_of
from live_server import Client

DONE = {"log": ["a", "b"], "n": 2}
Shared = Callable[[Client, str], Awaitable[None]]


async def new_thread(sdk: Client) -> str:
    return (await sdk.threads.create())["thread_id"]


@contextmanager
def refused(status: int, *, about: str) -> Generator[None]:
    """The request is refused; what `wait` raises is not among the SDK's own errors."""
    with pytest.raises((APIStatusError, httpx.HTTPStatusError)) as raised:
        yield
    assert raised.value.response.status_code == status
    assert about in raised.value.response.text


async def outcome(sdk: Client, how: str, thread_id: str | None, graph: str, **given: Any) -> Any:
    """The values that a run ends with, whichever way it was started."""
    if how == "wait":
        return await sdk.runs.wait(thread_id, graph, **given)
    if how == "stream":
        parts = await all_of(sdk.runs.stream(thread_id, graph, **given))
        return [part for part in parts if part.event == "values"][-1].data
    run = await sdk.runs.create(thread_id, graph, **given)
    return await sdk.runs.join(run["thread_id"], run["run_id"])


def each_way(*keywords: str) -> Callable[[Shared], Shared]:
    """Enter a scenario for each of the three methods."""

    def enter(shared: Shared) -> Shared:
        for how in ("create", "stream", "wait"):

            async def scenario(sdk: Client, how: str = how) -> None:
                await shared(sdk, how)

            scenario.__name__ = getattr(shared, "__name__", "")
            covers(f"runs.{how}", *keywords)(scenario)
        return shared

    return enter


@each_way("thread_id", "assistant_id", "input", "config", "context", "metadata", "on_run_created")
async def the_graph_sees_what_is_given(sdk: Client, how: str) -> None:
    thread_id, told = await new_thread(sdk), list[Any]()
    values = await outcome(
        sdk,
        how,
        thread_id,
        "echo",
        input={"anything": 7},
        config={"tags": ["t"], "recursion_limit": 31},
        context={"model_name": "big"},
        metadata={"mark": how},
        on_run_created=told.append,
    )
    seen = values["seen"]
    assert (values["anything"], seen["context"]) == (7, {"model_name": "big"})
    assert (seen["config"]["tags"], seen["config"]["recursion_limit"]) == (["t"], 31)
    (run,) = await sdk.runs.list(thread_id)
    assert (run["status"], run["metadata"]["mark"]) == ("success", how)
    assert [known["run_id"] for known in told] == [run["run_id"]]


@each_way("command", "strict_resume")
async def an_answer_goes_to_what_was_asked(sdk: Client, how: str) -> None:
    thread_id = await new_thread(sdk)
    await sdk.runs.wait(thread_id, "hitl", input={"n": 0})
    assert (await sdk.threads.get(thread_id))["status"] == "interrupted"
    values = await outcome(sdk, how, thread_id, "hitl", command={"resume": "yes"}, strict_resume=True)
    assert values == {"log": ["answer=yes", "b"], "n": 2}
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


@each_way("strict_resume")
async def an_answer_to_what_nobody_asked_fails_and_the_thread_goes_on_waiting(sdk: Client, how: str) -> None:
    thread_id = await new_thread(sdk)
    await sdk.runs.wait(thread_id, "hitl", input={"n": 0})
    before = await sdk.threads.get_state(thread_id)
    wrong = {"resume": {"0" * 32: "yes"}}
    with suppress(Exception):  # `wait` raises it; the run tells it in any way
        await outcome(sdk, how, thread_id, "hitl", command=wrong, strict_resume=True)
    (newest, *_) = await sdk.runs.list(thread_id)
    assert newest["status"] == "error"
    assert (await sdk.threads.get(thread_id))["status"] == "interrupted"
    assert (await sdk.threads.get_state(thread_id))["checkpoint"] == before["checkpoint"]
    values = await outcome(sdk, how, thread_id, "hitl", command={"resume": "yes"}, strict_resume=True)
    assert values == {"log": ["answer=yes", "b"], "n": 2}


@each_way("interrupt_before", "interrupt_after")
async def a_run_stops_before_or_after_a_node(sdk: Client, how: str) -> None:
    thread_id = await new_thread(sdk)
    await outcome(sdk, how, thread_id, "steps", input={"n": 0}, interrupt_before=["a"])
    assert (await sdk.threads.get_state(thread_id))["next"] == ["a"]
    values = await outcome(sdk, how, thread_id, "steps", interrupt_after=["a"])
    assert values["log"] == ["a"]
    assert (await sdk.threads.get_state(thread_id))["next"] == ["b"]


@each_way("checkpoint", "checkpoint_id")
async def a_run_starts_from_a_past_state(sdk: Client, how: str) -> None:
    thread_id = await new_thread(sdk)
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    past = (await sdk.threads.get_history(thread_id))[1]
    assert past["next"] == ["b"]
    assert await outcome(sdk, how, thread_id, "steps", checkpoint=past["checkpoint"]) == DONE
    assert await outcome(sdk, how, thread_id, "steps", checkpoint_id=past["checkpoint_id"]) == DONE
    history = await sdk.threads.get_history(thread_id)
    parents = [state["parent_checkpoint"]["checkpoint_id"] for state in history if state["parent_checkpoint"]]
    assert parents.count(past["checkpoint_id"]) >= 2


@each_way("durability", "checkpoint_during")
async def only_the_end_is_kept_if_so_wanted(sdk: Client, how: str) -> None:
    for option in ({"durability": "exit"}, {"checkpoint_during": False}):
        thread_id = await new_thread(sdk)
        assert await outcome(sdk, how, thread_id, "steps", input={"n": 0}, **option) == DONE
        assert len(await sdk.threads.get_history(thread_id)) == 1


@each_way("multitask_strategy", "if_not_exists")
async def a_busy_or_unknown_thread_is_refused_or_made(sdk: Client, how: str) -> None:
    unknown = str(uuid.uuid4())
    with refused(404, about="not found"):
        await outcome(sdk, how, unknown, "steps", input={"n": 0}, if_not_exists="reject")
    assert await outcome(sdk, how, unknown, "steps", input={"n": 0}, if_not_exists="create") == DONE
    busy = await sdk.runs.create(unknown, "slow", input={"n": 400, "delay": 0.05})
    with refused(409, about="busy"):
        await outcome(sdk, how, unknown, "steps", input={"n": 0}, multitask_strategy="reject")
    values = await outcome(sdk, how, unknown, "steps", input={"n": 0}, multitask_strategy="rollback")
    assert values["n"] == 2
    with pytest.raises(NotFoundError):
        await sdk.runs.get(unknown, busy["run_id"])


@each_way("on_completion")
async def the_thread_of_a_run_without_one_may_be_kept(sdk: Client, how: str) -> None:
    mark = uuid.uuid4().hex
    for on_completion in ("delete", "keep"):
        given: dict[str, Any] = {"metadata": {"mark": mark}, "on_completion": on_completion}
        assert await outcome(sdk, how, None, "steps", input={"n": 0}, **given) == DONE
    (kept,) = [t for t in await sdk.threads.search(metadata={"mark": mark}) if t["status"] != "busy"]
    assert kept["values"] == DONE


@each_way("webhook")
async def a_webhook_that_leads_inside_is_refused(sdk: Client, how: str) -> None:
    with refused(422, about="webhook"):
        await outcome(sdk, how, await new_thread(sdk), "steps", input={"n": 0}, webhook="http://127.0.0.1:9/hook")


@each_way("after_seconds", "langsmith_tracing")
async def a_run_starts_later_and_may_name_where_it_is_traced(sdk: Client, how: str) -> None:
    thread_id = await new_thread(sdk)
    given: dict[str, Any] = {"after_seconds": 1, "langsmith_tracing": {"project_name": "surface"}}
    assert await outcome(sdk, how, thread_id, "steps", input={"n": 0}, **given) == DONE
    (run,) = await sdk.runs.list(thread_id)
    first = (await sdk.threads.get_history(thread_id))[-1]
    assert first["created_at"] > run["created_at"]
    assert run["status"] == "success"
