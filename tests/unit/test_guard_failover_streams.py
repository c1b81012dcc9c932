"""A stream that breaks after tokens were shown goes on, is taken back, or fails: it never says anything twice."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks
from langgraph.graph import END, START, MessagesState, StateGraph

from scripted_targets import Scripted, Status
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.calls import CallSite
from waystation_guards.errors import StreamBroken
from waystation_guards.failover.hedging import Hedge
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Backoff, Decision, FailoverPolicy, OnBreak
from waystation_guards.failover.stream import CONTINUE, Seam
from waystation_guards.failover.targets import Target
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Ports, use_ports
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio

CUT = ConnectionResetError("cut")
START_OF_IT = ["The sky ", "is blue ", "because "]
REST_OF_IT = ["light is ", "scattered."]
WHOLE = "The sky is blue because light is scattered."


@pytest.fixture(autouse=True)
def ports() -> Ports:
    made = memory_ports()
    use_ports(made)
    return made


def scripted(*scripts: list[Any]) -> Scripted:
    return Scripted(model=f"m-{uuid4()}", scripts=list(scripts))


def over(*models: Any, on_break: OnBreak = "continue", retries: int = 0) -> FailoverModel:
    row = Decision(retries, retries)
    rows: Any = {"connection": row, "unknown": row, "malformed": row}
    return FailoverModel(models, FailoverPolicy(backoff=Backoff(first_s=0), on_break=on_break, decisions=rows))


async def read(model: Any, how: str = "astream", config: Any = None) -> list[AIMessageChunk]:
    if how == "astream":
        return [chunk async for chunk in model.astream("why?", config)]
    return await asyncio.to_thread(lambda: [*model.stream("why?", config)])


def text_of(chunks: list[AIMessageChunk]) -> str:
    return "".join(str(chunk.text) for chunk in chunks)


def summed(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    full: Any = chunks[0]
    for chunk in chunks[1:]:
        full = full + chunk
    return full


def marks(chunks: list[AIMessageChunk], name: str) -> list[Any]:
    return [chunk.response_metadata[name] for chunk in chunks if name in chunk.response_metadata]


HOW = ("astream", "stream")


@pytest.mark.parametrize("how", HOW)
async def test_the_next_target_goes_on_from_what_was_shown_in_the_same_message(how: str) -> None:
    first, second = scripted([*START_OF_IT, CUT]), scripted(REST_OF_IT)
    chunks = await read(over(Target(first, name="a"), Target(second, name="b")), how)
    assert text_of(chunks) == WHOLE
    assert len({chunk.id for chunk in chunks}) == 1
    assert marks(chunks, "failover_continued") == [
        [{"after_chars": 24, "target": "a", "class": "connection", "error": "ConnectionResetError"}]
    ]
    assert marks(chunks, "failover")[0]["continued"] == 1
    assert second.asked == [[HumanMessage("why?"), AIMessage("The sky is blue because "), HumanMessage(CONTINUE)]]


async def test_a_target_that_takes_beginnings_is_given_the_beginning() -> None:
    first, second = scripted([*START_OF_IT, CUT]), scripted(REST_OF_IT)
    await read(over(first, Target(second, prefill=True)))
    assert second.asked == [[HumanMessage("why?"), AIMessage("The sky is blue because")]]


@pytest.mark.parametrize(
    "again",
    [
        [*START_OF_IT, *REST_OF_IT],
        [WHOLE],
        ["T", "he s", "ky is blue because light", " is scattered."],
        ["blue because ", *REST_OF_IT],
        ["is blue because light is scattered."],
        ["because ", *REST_OF_IT],
    ],
)
async def test_what_a_continuation_repeats_is_not_shown_again(again: list[str]) -> None:
    assert text_of(await read(over(scripted([*START_OF_IT, CUT]), scripted(again)))) == WHOLE


async def test_a_continuation_breaks_and_is_continued_too() -> None:
    one, two, three = scripted([START_OF_IT[0], CUT]), scripted([*START_OF_IT[1:], CUT]), scripted(REST_OF_IT)
    chunks = await read(over(one, two, three))
    assert text_of(chunks) == WHOLE
    assert marks(chunks, "failover")[0]["continued"] == 2


async def test_more_breaks_than_allowed_end_the_stream() -> None:
    model = scripted(*([f"{number} ", CUT] for number in range(9)))
    with pytest.raises(StreamBroken):
        await read(over(model, retries=9))
    assert len(model.asked) == 4


@pytest.mark.parametrize("how", HOW)
async def test_a_restart_takes_back_the_message_and_sends_another(how: str) -> None:
    first, second = scripted([*START_OF_IT, CUT]), scripted(["Because ", "of Rayleigh."])
    chunks = await read(over(first, second, on_break="restart"), how)
    (old, new) = dict.fromkeys(chunk.id for chunk in chunks)
    (retraction,) = [chunk for chunk in chunks if "failover_retracted" in chunk.response_metadata]
    assert retraction.id == old
    assert marks(chunks, "failover_replaces") == [old]
    assert text_of([chunk for chunk in chunks if chunk.id == new]) == "Because of Rayleigh."
    assert marks(chunks, "failover")[0]["restarted"] == 1


async def test_chunks_added_up_are_the_answer_without_what_was_retracted() -> None:
    first, second = scripted([*START_OF_IT, CUT]), scripted(["Because ", "of Rayleigh."])
    chunks = await read(over(first, second, on_break="restart"))
    assert summed(chunks).text == "Because of Rayleigh."
    assert (chunks[0] + chunks[1:]).text == "Because of Rayleigh."  # type: ignore[operator]  # as LangChain adds lists
    merged = merge_chat_generation_chunks([ChatGenerationChunk(message=chunk) for chunk in chunks])
    assert merged is not None
    assert merged.text == "Because of Rayleigh."
    assert type(summed(chunks)) is AIMessageChunk


@pytest.mark.parametrize("how", HOW)
async def test_a_stream_may_fail_instead(how: str) -> None:
    first, second = scripted([*START_OF_IT, CUT]), scripted(REST_OF_IT)
    with pytest.raises(StreamBroken) as broken:
        await read(over(first, second, on_break="fail"), how)
    assert broken.value.__cause__ is CUT
    assert second.asked == []


async def test_where_nobody_goes_on_the_stream_is_broken() -> None:
    with pytest.raises(StreamBroken):
        await read(over(scripted([*START_OF_IT, CUT]), scripted([Status(401)])))


@pytest.mark.parametrize("on_break", ["continue", "restart", "fail"])
async def test_a_break_before_anything_was_shown_is_not_seen(on_break: OnBreak) -> None:
    first, second = scripted([AIMessageChunk(content=""), CUT]), scripted([WHOLE])
    chunks = await read(over(first, second, on_break=on_break))
    assert text_of(chunks) == WHOLE
    assert marks(chunks, "failover_continued") == marks(chunks, "failover_replaces") == []


async def test_half_a_tool_call_is_retracted_and_made_anew() -> None:
    def part(args: str, name: str | None = None) -> AIMessageChunk:
        call: Any = {"name": name, "args": args, "id": name and "1", "index": 0}
        return AIMessageChunk(content="", tool_call_chunks=[call])

    first = scripted([part('{"query": "o', "search"), CUT])
    second = scripted([part('{"query": ', "search"), part('"two"}')])
    chunks = await read(over(first, second))
    assert len({chunk.id for chunk in chunks}) == 2
    (call,) = summed(chunks).tool_calls
    assert call["args"] == {"query": "two"}


async def test_a_stream_that_ends_without_its_end_is_broken() -> None:
    class ChatOpenAI(Scripted):
        """LangChain takes the provider's name from the class's."""

    end = AIMessageChunk(content="", response_metadata={"finish_reason": "stop"})
    first = ChatOpenAI(model="a", scripts=[START_OF_IT])
    second = ChatOpenAI(model="b", scripts=[[*REST_OF_IT, end]])
    chunks = await read(over(first, second))
    assert text_of(chunks) == WHOLE
    assert marks(chunks, "failover")[0]["failures"] == [
        {"target": "openai/a", "class": "malformed", "error": "MalformedAnswer"}
    ]
    assert summed(chunks).response_metadata["finish_reason"] == "stop"


async def test_blocks_are_continued_in_their_form() -> None:
    def block(text: str) -> AIMessageChunk:
        return AIMessageChunk(content=[{"type": "text", "text": text, "index": 0}])

    chunks = await read(over(scripted([*map(block, START_OF_IT), CUT]), scripted(REST_OF_IT)))
    assert summed(chunks).content == [{"type": "text", "text": WHOLE, "index": 0}]


async def test_each_try_of_a_broken_stream_is_settled(ports: Ports) -> None:
    budget = Budget(Limit(100, "model_calls", "tenant"), Limit(1e6, "tokens", "tenant"))
    model = over(scripted([*START_OF_IT, CUT]), scripted(REST_OF_IT))
    await read(model, config=watched(None, [budget]))
    calls, tokens = await budget.standing(ports, CallSite())
    assert (calls.spent, calls.held, tokens.held) == (2, 0, 0)
    assert tokens.spent > 0


async def test_a_continuation_that_begins_anew_is_a_restart() -> None:
    first, second = scripted([*START_OF_IT, CUT]), scripted(["The sky is blue ", "since light is scattered."])
    chunks = await read(over(first, second, retries=1))
    (_, new) = dict.fromkeys(chunk.id for chunk in chunks)
    assert text_of([chunk for chunk in chunks if chunk.id == new]) == "The sky is blue since light is scattered."
    assert summed(chunks).text == "The sky is blue since light is scattered."


class TestInGraphs:
    """What LangGraph's `messages` stream carries, from a node that invokes its model."""

    def graph(self, model: Any) -> Any:
        async def answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
            return {"messages": [await model.ainvoke(state["messages"])]}

        def blocking_answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
            return {"messages": [model.invoke(state["messages"])]}

        builder: Any = StateGraph(MessagesState)
        builder.add_node("answer", answer if self.asynchronous else blocking_answer)
        return builder.add_edge(START, "answer").add_edge("answer", END).compile()

    @pytest.fixture(autouse=True, params=[True, False])
    def _asynchronous(self, request: pytest.FixtureRequest) -> None:
        self.asynchronous = request.param

    async def streamed(self, model: Any) -> tuple[list[AIMessageChunk], list[Any], AIMessage]:
        chunks: list[AIMessageChunk] = []
        events: list[Any] = []
        state: Any = {}
        modes = ["messages", "custom", "values"]
        async for mode, part in self.graph(model).astream({"messages": [("user", "why?")]}, stream_mode=modes):
            match mode:
                case "messages":
                    chunks.append(part[0])
                case "custom":
                    events.append(part)
                case _:
                    state = part
        return chunks, events, state["messages"][-1]

    async def test_a_failover_is_one_message(self) -> None:
        chunks, _, final = await self.streamed(over(scripted([Status(401)]), scripted([*START_OF_IT, *REST_OF_IT])))
        assert text_of(chunks) == final.text == WHOLE
        assert {chunk.id for chunk in chunks} == {final.id}

    async def test_a_continuation_is_one_message_and_told(self) -> None:
        chunks, events, final = await self.streamed(over(scripted([*START_OF_IT, CUT]), scripted(REST_OF_IT)))
        assert text_of(chunks) == final.text == WHOLE
        assert {chunk.id for chunk in chunks} == {final.id}
        assert [(one["guard"], one["event"]) for one in events] == [("failover", "continued")]

    async def test_a_restart_is_another_message_and_only_that_is_kept(self) -> None:
        first, second = scripted([*START_OF_IT, CUT]), scripted(["Because ", "of Rayleigh."])
        chunks, events, final = await self.streamed(over(first, second, on_break="restart"))
        (old, new) = dict.fromkeys(chunk.id for chunk in chunks)
        assert (final.text, final.id) == ("Because of Rayleigh.", new)
        assert marks(chunks, "failover_replaces") == [old]
        assert [(one["event"], one["message_id"]) for one in events] == [("retracted", old)]

    async def test_hedges_show_one_answer(self) -> None:
        model = FailoverModel(
            [scripted([WHOLE]), scripted(["another"])], FailoverPolicy(hedge=Hedge(after_s=0.0, least_s=0.0))
        )
        chunks, _, final = await self.streamed(model)
        assert text_of(chunks) == final.text
        assert final.text in (WHOLE, "another")


class TestSeams:
    @pytest.mark.parametrize(
        ("before", "pieces", "new"),
        [
            ("one two three", [" four"], " four"),
            ("one two three ", ["three four"], "four"),
            ("one two three", ["three four"], " four"),
            ("one two thr", ["ee four"], "ee four"),
            ("one two thr", ["three four"], "three four"),
            ("ha ha", [" ha"], " ha"),
            ("a", ["a b"], " b"),
            ("banana", ["nana"], "nana"),
            ("one two three", ["one two three"], ""),
            ("one two three", ["one", " two"], ""),
            ("x = 1\ny = 2\n", ["y = 2\n", "z = 3"], "z = 3"),
        ],
    )
    def test_only_repetitions_are_cut(self, before: str, pieces: list[str], new: str) -> None:
        seam = Seam(before)
        assert "".join([*map(seam.cut, pieces), seam.rest()]) == new

    def test_text_is_held_back_no_longer_than_it_may_be_a_repetition(self) -> None:
        seam = Seam("one two three")
        assert [seam.cut("thr"), seam.cut("ough "), seam.cut("three")] == ["", "through ", "three"]
