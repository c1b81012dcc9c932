"""Interrupts and the other commands of the event streaming protocol."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest

from e2e.event_streams import Seen, command, read, refused, start, until

pytestmark = pytest.mark.anyio


def asked(events: list[Seen]) -> list[str]:
    return [event.body["interrupt_id"] for event in events if event.name == "input.requested"]


async def test_an_answer_resumes_as_a_run_of_its_own(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "hitl", {"n": 0})
    events = await until(http, thread_id)
    (question,) = asked(events)
    answered = await command(http, thread_id, "input.respond", namespace=[], interrupt_id=question, response="yes")
    rest = await until(http, thread_id, since=events[-1].seq)
    assert rest[-2].body == {"log": ["answer=yes", "b"], "n": 2}
    assert answered["run_id"] in rest[0].data["event_id"]
    again = await refused(http, thread_id, "input.respond", interrupt_id=question, response="yes")
    assert again["error"] == "no_such_interrupt"


async def test_an_answer_that_comes_before_the_run_has_stopped_is_held_back(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "hitl", {"n": 0})
    events = await read(http, thread_id, lambda event: event.name == "input.requested")
    await command(http, thread_id, "input.respond", namespace=[], interrupt_id=asked(events)[0], response="now")
    whole = await until(http, thread_id, ends=2)
    assert whole[-2].body["log"] == ["answer=now", "b"]


async def test_two_answers_to_one_question_are_one_too_many(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "hitl", {"n": 0})
    (question,) = asked(await until(http, thread_id))
    sent = {"interrupt_id": question, "response": "yes"}
    both = await asyncio.gather(*(refused(http, thread_id, "input.respond", **sent) for _ in range(2)))
    assert sorted(answer["type"] for answer in both) == ["error", "success"]
    assert (await until(http, thread_id, ends=2))[-2].body["log"] == ["answer=yes", "b"]


async def test_several_questions_are_answered_together_or_one_by_one(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "multi", {"n": 0})
    first = await until(http, thread_id)
    one, two = asked(first)
    await command(http, thread_id, "input.respond", namespace=[], interrupt_id=one, response="A")
    second = await until(http, thread_id, since=first[-1].seq)
    assert asked(second) == [two]
    assert second[-1].end == "interrupted"
    await command(http, thread_id, "input.respond", responses=[{"namespace": [], "interrupt_id": two, "response": "B"}])
    third = await until(http, thread_id, since=second[-1].seq)
    assert third[-2].body["log"] == ["one=A", "two=B"]


async def test_update_and_goto_go_with_the_answer(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "hitl", {"n": 0})
    events = await until(http, thread_id)
    more = {"update": {"log": ["patched"]}, "metadata": {"m": 2}}
    await command(http, thread_id, "input.respond", interrupt_id=asked(events)[0], response="yes", **more)
    rest = await until(http, thread_id, since=events[-1].seq)
    assert rest[-2].body["log"] == ["patched", "answer=yes", "b"]
    assert (await http.get(f"/threads/{thread_id}/runs")).json()[0]["metadata"]["m"] == 2


async def test_input_is_the_answer_while_something_is_asked(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "hitl", {"n": 0})
    await until(http, thread_id)
    await start(http, "hitl", {"n": 5}, thread_id=thread_id)
    whole = await until(http, thread_id, ends=2)
    assert whole[-2].body == {"log": ["answer={'n': 5}", "b"], "n": 2}


async def test_questions_of_subgraphs_are_answered_by_their_id_alone(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "nested_all", {"n": 7, "messages": [{"role": "user", "content": "hi"}]})
    events = await until(http, thread_id)
    question = next(event for event in events if event.name == "input.requested")
    assert question.namespace[0].startswith("child:")
    tree = (await command(http, thread_id, "agent.getTree"))["tree"]
    assert (tree["status"], tree["children"][0]["status"]) == ("interrupted", "started")
    await command(http, thread_id, "input.respond", interrupt_id=question.body["interrupt_id"], response="ok")
    rest = await until(http, thread_id, since=events[-1].seq)
    assert rest[-1].seq == 40
    tree = (await command(http, thread_id, "agent.getTree"))["tree"]
    (child,) = tree["children"]
    assert [node["graph_name"] for node in (tree, child, child["children"][0])] == ["nested_all", "child", "grandchild"]
    assert {node["status"] for node in (tree, child, child["children"][0])} == {"completed"}


async def test_the_past_is_listed_and_forked(http: httpx.AsyncClient) -> None:
    thread_id = await start(http, "steps", {"n": 0})
    await until(http, thread_id)
    state = await command(http, thread_id, "state.get", namespace=[], keys=["log"])
    assert state["values"] == {"log": ["a", "b"]}
    past = (await command(http, thread_id, "state.listCheckpoints", limit=10))["checkpoints"]
    assert [one["step"] for one in past] == [2, 1, 0, -1]
    assert past[0]["id"] == state["checkpoint"]["id"]
    fork = await command(http, thread_id, "state.fork", checkpoint_id=past[1]["id"])
    assert fork["thread_id"] == thread_id
    whole = await until(http, thread_id, ends=2)
    assert whole[-2].body == {"log": ["a", "b"], "n": 2}
    assert [event.body["log"] for event in whole if event.name == "values"][3:] == [["a"], ["a", "b"]]
    unknown = await refused(http, thread_id, "state.fork", checkpoint_id=str(uuid.uuid4()))
    assert unknown["error"] == "no_such_checkpoint"
    via_config = {"config": {"configurable": {"checkpoint_id": past[1]["id"]}}}
    await command(http, thread_id, "run.start", assistant_id="steps", **via_config)
    assert (await until(http, thread_id, ends=3))[-2].body == {"log": ["a", "b"], "n": 2}
