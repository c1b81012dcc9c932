"""What the wire tells of a run besides its events, and how it treats graphs that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk, BaseMessageChunk, message_chunk_to_message
from langchain_core.messages.tool import tool_call_chunk
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphDrained
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import interrupt

from waystation.worker.publisher import WireEvent
from waystation.worker.wire import AnyGraph, Wire
from waystation.worker.wire_messages import EncodedOnce, GrowingMessages

anyio = pytest.mark.anyio


class Wide(TypedDict, total=False):
    question: str
    hidden: str
    answer: Any


class Narrow(TypedDict, total=False):
    answer: Any


def chain(*nodes: Any, output: type = Wide) -> AnyGraph:
    """A graph of nodes called a, b, …, one after the other."""
    builder = cast("Any", StateGraph(Wide, output_schema=output))  # its types are partially unknown
    names = [chr(ord("a") + i) for i in range(len(nodes))]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    for left, right in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(left, right)
    return builder.compile(checkpointer=InMemorySaver())


def returns(answer: Any, **more: Any) -> Any:
    def node(state: Wide) -> dict[str, Any]:
        return {"answer": answer, **more}

    return node


def asks(state: Wide) -> dict[str, Any]:
    return {"answer": interrupt("really?")}


async def streamed(wire: Wire, graph: AnyGraph, input: Any = None, **options: Any) -> list[WireEvent]:
    config: Any = {"configurable": {"thread_id": "t"}}
    found: list[WireEvent] = []
    async for events in wire.stream(graph, input or {"question": "?"}, config=config, **options):
        found += events
    return found


def output(wire: Wire) -> Any:
    found = wire.output()
    return None if found is None else orjson.loads(found)


@anyio
async def test_the_output_is_known_though_values_were_not_asked_for() -> None:
    wire = Wire(["custom"])
    assert await streamed(wire, chain(returns(42))) == []
    assert output(wire) == {"question": "?", "answer": 42}
    assert not wire.paused


@anyio
async def test_a_graph_shows_its_output_schema_only() -> None:
    wire = Wire(["values", "updates"])
    graph = chain(returns(1, hidden="h"), output=Narrow)
    events = await streamed(wire, graph)
    assert events == [
        ("updates", b'{"a":{"answer":1}}', "updates"),
        ("values", b'{"answer":1}', "values"),
    ]
    assert output(wire) == {"answer": 1}


@anyio
@pytest.mark.parametrize("modes", [["values"], ["updates"], ["events"]])
async def test_an_interrupt_is_part_of_the_output(modes: list[str]) -> None:
    wire = Wire(modes)
    await streamed(wire, chain(asks))
    assert wire.paused
    assert output(wire) == {
        "question": "?",
        "__interrupt__": [{"value": "really?", "id": wire.interrupts[0].id, "response_schema": None}],
    }
    assert wire.last_values == {"question": "?"}


@anyio
@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
async def test_a_breakpoint_pauses_and_asks_nothing(where: str) -> None:
    graph = chain(returns(1), returns(2))
    wire = Wire([])
    await streamed(wire, graph, **{where: ["b"] if where == "interrupt_before" else ["a"]})
    assert wire.paused
    assert wire.interrupts == []
    assert output(wire) == {"question": "?", "answer": 1}


@anyio
async def test_a_functional_graph_may_return_anything() -> None:
    @entrypoint()
    def triple(n: int) -> int:
        return n * 3

    wire = Wire(["values"])
    events = await streamed(wire, cast("AnyGraph", triple), 5)
    assert events == [("values", b"15", "values")]
    assert output(wire) == 15


@anyio
async def test_a_functional_graph_that_asks_has_no_values_yet() -> None:
    @entrypoint(checkpointer=InMemorySaver())
    def ask(_: int) -> Any:
        return interrupt("really?")

    wire = Wire(["updates"])
    await streamed(wire, cast("AnyGraph", ask), 5)
    assert list(output(wire)) == ["__interrupt__"]


def test_a_wire_without_a_run_has_no_output() -> None:
    assert Wire(["values"]).output() is None


@anyio
async def test_a_value_that_is_no_json_is_described_and_the_run_goes_on() -> None:
    loop: list[Any] = []
    loop.append(loop)

    def node(state: Wide) -> dict[str, Any]:
        get_stream_writer()([loop, object, "\ud800", {1: float("nan")}])
        return {"answer": 1}

    wire = Wire(["custom"])
    events = await streamed(wire, chain(node))
    assert [orjson.loads(data) for _, data, _ in events] == [[["<a cycle>"], "<class 'object'>", "\ufffd", {"1": None}]]
    assert wire.last_values["answer"] == 1


@anyio
@pytest.mark.parametrize("modes", [["values"], ["events"]])
async def test_what_a_node_raises_is_raised(modes: list[str]) -> None:
    def node(state: Wide) -> Wide:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await streamed(Wire(modes), chain(node))


@anyio
@pytest.mark.parametrize("modes", [["values"], ["events"]])
async def test_cancelling_the_stream_cancels_the_node(modes: list[str]) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def node(state: Wide) -> Wide:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return {}

    run = asyncio.create_task(streamed(Wire(modes), chain(node)))
    async with asyncio.timeout(60):
        await started.wait()
        run.cancel()
        await asyncio.wait({run})
        assert run.cancelled()
        await cancelled.wait()


@anyio
@pytest.mark.parametrize("modes", [["values"], ["events"]])
async def test_a_drain_ends_the_stream_at_the_next_step(modes: list[str]) -> None:
    control = RunControl()

    def first(state: Wide) -> Wide:
        control.request_drain()
        return {"answer": 1}

    graph = chain(first, returns(2))
    wire = Wire(modes)
    with pytest.raises(GraphDrained):
        await streamed(wire, graph, control=control)
    assert wire.last_values == {"question": "?", "answer": 1}


def test_metadata_is_encoded_once_for_each_dictionary() -> None:
    encoded = EncodedOnce()
    metadata = {"langgraph_node": "a"}
    assert encoded(metadata) is encoded(metadata)
    assert encoded({"langgraph_node": "b"}) == b'{"langgraph_node":"b"}'


def test_a_dictionary_is_not_mistaken_for_one_that_is_gone() -> None:
    encoded = EncodedOnce()
    for n in range(1000):  # each is freed when the next is made, and often gets its address
        assert encoded({"n": n}) == b'{"n":%d}' % n


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
CHUNKS: st.SearchStrategy[AIMessageChunk] = st.one_of(
    st.builds(AIMessageChunk, content=TEXTS),
    st.builds(AIMessageChunk, content=st.just([{"type": "text", "text": "block", "index": 0}])),
    st.builds(
        AIMessageChunk,
        content=TEXTS,
        tool_call_chunks=st.sampled_from(['{"a"', ": 1", "}", "?"]).map(
            lambda args: [tool_call_chunk(name=None, args=args, id=None, index=0)]
        ),
    ),
    st.builds(
        AIMessageChunk,
        content=TEXTS,
        usage_metadata=st.just({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        response_metadata=st.just({"model_name": "m"}),
    ),
)


@given(st.lists(CHUNKS, min_size=1, max_size=8), st.booleans())
def test_the_text_so_far_is_what_langchain_would_add_up(chunks: list[AIMessageChunk], ends: bool) -> None:
    if ends:
        chunks = [*chunks, AIMessageChunk(content="", chunk_position="last")]
    growing, whole = GrowingMessages(EncodedOnce()), None
    for chunk in chunks:
        chunk.id = "lc_run--1"
        before = chunk.model_copy(deep=True)
        events = growing.encode(chunk, {}, "")
        whole = added(whole, chunk)
        assert orjson.loads(events[-1][1]) == [message_chunk_to_message(whole).model_dump()]
        assert chunk == before


def added(whole: BaseMessageChunk | None, chunk: AIMessageChunk) -> BaseMessageChunk:
    return chunk.model_copy(deep=True) if whole is None else whole + chunk
