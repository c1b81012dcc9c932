"""Graphs that stop and go on: interrupts, breakpoints, commands."""

from __future__ import annotations

from typing import Any

import pytest

from live_server import Client

pytestmark = pytest.mark.anyio


async def pending(sdk: Client, thread_id: str) -> dict[str, str]:
    """What is asked → the id under which it is answered."""
    state = await sdk.threads.get_state(thread_id)
    return {interrupt["value"]: interrupt["id"] for interrupt in state["interrupts"]}


async def test_an_interrupt_ends_the_run_well_and_waits(sdk: Client, thread_id: str) -> None:
    values = await sdk.runs.wait(thread_id, "hitl", input={"n": 1})
    (asked,) = values["__interrupt__"]
    assert asked["value"] == {"question": "go on?"}
    (run,) = await sdk.runs.list(thread_id)
    thread = await sdk.threads.get(thread_id)
    assert (run["status"], thread["status"]) == ("success", "interrupted")
    assert [i["id"] for found in thread["interrupts"].values() for i in found] == [asked["id"]]
    again = await sdk.runs.wait(thread_id, "hitl", input=None)
    assert again["__interrupt__"][0]["id"] == asked["id"]
    values = await sdk.runs.wait(thread_id, "hitl", command={"resume": {"any": ["json", 1]}})
    assert values == {"log": ["answer={'any': ['json', 1]}", "b"], "n": 2}
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


async def test_an_interrupt_is_streamed(sdk: Client, thread_id: str) -> None:
    parts = [p async for p in sdk.runs.stream(thread_id, "hitl", input={"n": 1}, stream_mode=["values", "updates"])]
    assert [part.data["__interrupt__"][0]["value"] for part in parts if "__interrupt__" in part.data] == [
        {"question": "go on?"}
    ] * 2
    parts = [p async for p in sdk.runs.stream(thread_id, "hitl", command={"resume": "yes"}, stream_mode="updates")]
    assert [part.data for part in parts[1:]] == [{"ask": {"log": ["answer=yes"]}}, {"b": {"log": ["b"], "n": 2}}]


async def test_several_interrupts_are_answered_by_id_together_or_in_turn(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "multi", input={"n": 1})
    ids = await pending(sdk, thread_id)
    values = await sdk.runs.wait(thread_id, "multi", command={"resume": {ids["second?"]: "2"}})
    assert [asked["value"] for asked in values["__interrupt__"]] == ["first?"]
    assert set(await pending(sdk, thread_id)) == {"first?"}
    values = await sdk.runs.wait(thread_id, "multi", command={"resume": {ids["first?"]: "1"}})
    assert values["log"] == ["one=1", "two=2"]
    other = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(other, "multi", input={"n": 1})
    answers = {interrupt_id: question[0] for question, interrupt_id in (await pending(sdk, other)).items()}
    assert (await sdk.runs.wait(other, "multi", command={"resume": answers}))["log"] == ["one=f", "two=s"]


async def test_one_answer_for_several_interrupts_fails_the_run(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "multi", input={"n": 1})
    with pytest.raises(Exception, match="multiple pending interrupts"):
        await sdk.runs.wait(thread_id, "multi", command={"resume": "which?"})
    assert set(await pending(sdk, thread_id)) == {"first?", "second?"}


async def test_two_questions_of_one_node_are_asked_one_after_the_other(sdk: Client, thread_id: str) -> None:
    assert (await sdk.runs.wait(thread_id, "twice", input={}))["__interrupt__"][0]["value"] == "one?"
    values = await sdk.runs.wait(thread_id, "twice", command={"resume": "first"})
    assert values["__interrupt__"][0]["value"] == "two?"
    assert (await sdk.runs.wait(thread_id, "twice", command={"resume": "second"}))["log"] == ["first second"]


async def test_an_interrupt_inside_a_subgraph_is_answered_from_outside(sdk: Client, thread_id: str) -> None:
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "n": 7}
    values = await sdk.runs.wait(thread_id, "nested", input=given)
    assert values["__interrupt__"][0]["value"] == "child asks"
    values = await sdk.runs.wait(thread_id, "nested", command={"resume": "ok"})
    assert "child answer=ok" in values["log"]


async def test_a_functional_graph_asks_too(sdk: Client, thread_id: str) -> None:
    values = await sdk.runs.wait(thread_id, "functional", input={"numbers": [4], "ask": True})
    assert values["__interrupt__"][0]["value"] == {"doubled": [8]}
    (run,) = await sdk.runs.list(thread_id)
    assert await sdk.runs.join(thread_id, run["run_id"]) == values
    values = await sdk.runs.wait(thread_id, "functional", command={"resume": "fine"})
    assert values == {"doubled": [8], "answer": "fine"}


@pytest.mark.parametrize("where", [{"interrupt_before": ["b"]}, {"interrupt_after": ["a"]}, {"interrupt_before": "*"}])
async def test_a_breakpoint_stops_and_the_next_run_goes_on(sdk: Client, thread_id: str, where: dict[str, Any]) -> None:
    values = await sdk.runs.wait(thread_id, "steps", input={"n": 0}, **where)
    state = await sdk.threads.get_state(thread_id)
    assert "__interrupt__" not in values
    assert state["next"] == (["a"] if where == {"interrupt_before": "*"} else ["b"])
    assert (await sdk.threads.get(thread_id))["status"] == "interrupted"
    assert (await sdk.runs.wait(thread_id, "steps", input=None))["log"] == ["a", "b"]


async def test_new_input_drops_a_pending_interrupt(sdk: Client, thread_id: str) -> None:
    first = await sdk.runs.wait(thread_id, "hitl", input={"n": 1})
    second = await sdk.runs.wait(thread_id, "hitl", input={"n": 2})
    assert first["__interrupt__"][0]["id"] != second["__interrupt__"][0]["id"]
    assert len((await sdk.threads.get_state(thread_id))["interrupts"]) == 1


async def test_a_resume_with_nothing_pending_changes_nothing(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "steps", input={"n": 0})
    values = await sdk.runs.wait(thread_id, "steps", command={"resume": "nobody asked"})
    assert values == {"log": ["a", "b"], "n": 2}


async def test_a_command_updates_the_state_and_goes_somewhere(sdk: Client, thread_id: str) -> None:
    values = await sdk.runs.wait(thread_id, "fork", input={"n": 1})
    assert values["log"] == ["decide", "right 1"]
    values = await sdk.runs.wait(thread_id, "fork", command={"update": {"n": 9}, "goto": "left"})
    assert values["log"] == ["decide", "right 1", "left 9"]
    pairs = {"update": [["n", 10], ["log", ["by hand"]]], "goto": ["right"]}
    assert (await sdk.runs.wait(thread_id, "fork", command=pairs))["log"][3:] == ["by hand", "right 10"]
    send = {"goto": [{"node": "left", "input": {"n": "sent"}}, "right"]}
    assert sorted((await sdk.runs.wait(thread_id, "fork", command=send))["log"][5:]) == ["left sent", "right 10"]


async def test_resume_and_update_in_one_command(sdk: Client, thread_id: str) -> None:
    await sdk.runs.wait(thread_id, "hitl", input={"n": 1})
    values = await sdk.runs.wait(thread_id, "hitl", command={"resume": "yes", "update": {"log": ["noted"]}})
    assert sorted(values["log"]) == ["answer=yes", "b", "noted"]
