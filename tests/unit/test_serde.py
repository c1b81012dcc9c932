"""What is loaded and what is not: listed types become objects again, other classes plain data, the rest an error."""

from __future__ import annotations

import collections
import decimal
import enum
import ipaddress
import logging
import operator
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, NamedTuple, NotRequired, cast

import ormsgpack
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel
from typing_extensions import TypedDict

from waystation_db.errors import CorruptCheckpoint
from waystation_db.serde import CheckpointSerde


class Color(enum.Enum):
    RED = "red"


class Shape(BaseModel):
    color: Color
    at: datetime


class Circle(Shape):
    radius: int = 1


@dataclass
class Order:
    lines: list[Line]
    shape: Shape | None = None


class Line(NamedTuple):
    item: str


class Unlisted(BaseModel):
    n: int


class State(TypedDict):
    messages: Annotated[Sequence[AnyMessage], operator.add]
    orders: NotRequired[dict[str, list[Order]]]


class InnerState(TypedDict):
    inner: Inner


class Inner(BaseModel):
    n: int


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAFE: list[Any] = [
    *(None, True, 1, 1.5, "a\0b", b"x", bytearray(b"x"), [1, [2]], {"a": {1: 2}}),
    *(NOW, NOW.date(), NOW.timetz(), timedelta(1, 2, 3), date(2026, 1, 1), time(1), UTC),
    *(uuid.UUID(int=7), decimal.Decimal("1.50"), {1, 2}, frozenset([1]), collections.deque([1])),
    *(ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8"), pathlib.Path("/x"), zoneinfo.ZoneInfo("UTC")),
    *(re.compile("a+", re.IGNORECASE), Document(page_content="text", metadata={"n": 1}), Interrupt("why", id="1")),
    *(Send("node", {"m": AIMessage("x")}), Command(goto="x", update={"n": 1}), RemoveMessage(id="1")),
    [
        HumanMessage(content=[{"type": "text", "text": "hi"}], id="1"),
        AIMessageChunk(content="d"),
        ToolMessage(content="r", tool_call_id="1"),
    ],
]


def _bytes(value: Any) -> tuple[str, bytes]:
    return JsonPlusSerializer().dumps_typed(value)


@pytest.mark.parametrize("value", SAFE, ids=lambda value: type(value).__name__)
def test_safe_types_come_back_as_they_were(value: Any) -> None:
    serde = CheckpointSerde()
    assert serde.dumps_typed(value) == _bytes(value)
    loaded = serde.loads_typed(serde.dumps_typed(value))
    assert (loaded, type(loaded)) == (value, type(value))


def _nothing(state: InnerState) -> None:
    """A node that changes nothing."""


def _graph() -> Any:
    inner: Any = StateGraph(InnerState)
    inner.add_node("n", _nothing)
    inner.add_edge(START, "n")
    builder: Any = StateGraph(State)
    builder.add_node("sub", inner.compile())
    builder.add_edge(START, "sub")
    return builder.compile()


VALUES: list[Any] = [Color.RED, Circle(color=Color.RED, at=NOW), Order([Line("x")], Shape(color=Color.RED, at=NOW))]


@pytest.mark.parametrize("value", [*VALUES, Line("x"), Inner(n=1)], ids=lambda value: type(value).__name__)
def test_types_of_a_graphs_schemas_come_back_as_they_were(value: Any) -> None:
    serde = CheckpointSerde()
    serde.allow_graph(_graph())
    loaded = serde.loads_typed(_bytes([value]))[0]
    assert (loaded, type(loaded)) == (value, type(value))


def test_configured_types_come_back_as_they_were() -> None:
    serde = CheckpointSerde(allowed_msgpack_modules=[(Unlisted.__module__, "Unlisted")])
    assert serde.loads_typed(_bytes(Unlisted(n=1))) == Unlisted(n=1)


def test_class_that_is_not_listed_comes_back_as_plain_data_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    serde = CheckpointSerde()
    with caplog.at_level(logging.WARNING):
        assert [serde.loads_typed(_bytes(Unlisted(n=1))) for _ in range(3)] == [{"n": 1}] * 3
    assert len(caplog.records) == 1


def test_listed_type_that_is_gone_comes_back_as_plain_data() -> None:
    serde = CheckpointSerde(allowed_msgpack_modules=[("gone", "Gone")])
    data = ormsgpack.packb(ormsgpack.Ext(2, ormsgpack.packb(("gone", "Gone", {"n": 1}))))
    assert serde.loads_typed(("msgpack", data)) == {"n": 1}


def test_error_names_the_type_that_was_refused() -> None:
    data = ormsgpack.packb([ormsgpack.Ext(0, ormsgpack.packb(("os", "system", "true")))])
    with pytest.raises(CorruptCheckpoint, match=r"os\.system"):
        CheckpointSerde().loads_typed(("msgpack", data))


def test_langgraphs_strict_mode_adds_to_the_list() -> None:
    serde = CheckpointSerde()
    assert serde.with_msgpack_allowlist([(Unlisted.__module__, "Unlisted")]) is serde
    assert serde.loads_typed(_bytes(Unlisted(n=1))) == Unlisted(n=1)


def test_messages_in_the_old_json_form_are_read() -> None:
    data = (
        b'[{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],'
        b' "kwargs": {"content": "hi"}}, {"lc": 2, "type": "constructor", "id": ["uuid", "UUID"],'
        b' "args": ["00000000-0000-0000-0000-000000000007"]}]'
    )
    assert CheckpointSerde().loads_typed(("json", data)) == [HumanMessage("hi"), uuid.UUID(int=7)]


def test_types_of_a_functional_graph_are_known_by_its_annotations() -> None:
    def flow(shape: Any) -> Any:
        return entrypoint.final(value="done", save=Inner(n=1))

    # As they are in a module without `from __future__ import annotations`.
    flow.__annotations__ = {"shape": Shape, "return": entrypoint.final[str, Inner]}
    graph: Any = cast(Any, entrypoint(checkpointer=InMemorySaver()))(flow)  # half typed
    serde = CheckpointSerde()
    serde.allow_graph(graph)
    for value in (Circle(color=Color.RED, at=NOW), Inner(n=1)):
        assert serde.loads_typed(_bytes(value)) == value
