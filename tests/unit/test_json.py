"""The guarded encoder: whatever a graph puts into its state becomes JSON, and ordinary JSON comes back unchanged."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json as stdlib_json
import re
import uuid
from collections import UserDict, deque
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core import messages as lc
from langchain_core.documents import Document
from langchain_core.messages.tool import tool_call_chunk
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, PrivateAttr, SecretStr, field_serializer

from waystation_db.json import MAX_DEPTH, dumps, loads


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any
    _hidden: int = 0


class Card(BaseModel):
    title: str
    author: lc.BaseMessage | None = None
    secret: SecretStr = SecretStr("hush")
    _note: str = PrivateAttr(default="private")


class Grumpy(BaseModel):
    n: int = 1

    @field_serializer("n")
    def refuse(self, _: int) -> int:
        raise RuntimeError("no")


class Nameless:
    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


class ArrayOfText:
    """Like numpy's arrays of types that orjson does not know."""

    __module__ = "numpy"

    def tolist(self) -> list[str]:
        return ["a", "b"]


class Fraction(float):
    pass


def through(value: Any) -> Any:
    return loads(dumps(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"ab\xff", "YWL/"),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"ab"), "YWI="),
        (Decimal("1.10"), 1.1),
        (Fraction(0.5), 0.5),
        (dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), "2020-01-02T03:04:05.000006+00:00"),
        (dt.date(2020, 1, 2), "2020-01-02"),
        (dt.time(1, 2, 3, tzinfo=dt.UTC), "01:02:03+00:00"),
        (dt.timedelta(seconds=90.5), 90.5),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ({1}, [1]),
        (frozenset({2}), [2]),
        (deque([1, 2]), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Colour.RED, "red"),
        (Pair(1, Colour.RED), {"left": 1, "right": "red"}),
        (UserDict(a=1), {"a": 1}),
        (ValueError("x y"), {"error": "ValueError", "message": "x y"}),
        (PurePosixPath("/a/b"), "/a/b"),
        (re.compile("a+"), "a+"),
        (ArrayOfText(), ["a", "b"]),
        (float("nan"), None),
        (float("-inf"), None),
        (Interrupt(value=1, id="abc"), {"value": 1, "id": "abc", "response_schema": None}),
        (Send("n", {"a": 1}), {"node": "n", "args": {"a": 1}}),
        (
            Command(goto="x", update={"a": 1}),
            {"graph": None, "update": {"a": 1}, "resume": None, "goto": "x"},
        ),
        (Document(page_content="p"), {"id": None, "metadata": {}, "page_content": "p", "type": "Document"}),
        ({1: "a", None: "b", 1.5: "c", False: "d"}, {"1": "a", "null": "b", "1.5": "c", "false": "d"}),
        ({(1, 2): 3, dt.date(2020, 1, 2): 4, Colour.RED: 5}, {"(1, 2)": 3, "2020-01-02": 4, "red": 5}),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("a\x00b", "a\ufffdb"),
        ({"k\x00": "\\u0000"}, {"k\ufffd": "\\u0000"}),
        (len, "<built-in function len>"),
        (Nameless(), "<Nameless>"),
    ],
)
def test_a_value_is_shown_as(value: Any, expected: Any) -> None:
    assert through(value) == expected


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 2**70, 10**300])
def test_an_integer_beyond_64_bits_keeps_its_digits(number: int) -> None:
    assert stdlib_json.loads(dumps([number])) == [number]


def test_an_absurd_integer_is_described() -> None:
    assert through(10**5000) == f"<an integer of {(10**5000).bit_length()} bits>"


@pytest.mark.parametrize(
    "message",
    [
        lc.HumanMessage("hi", id="1", name="n"),
        lc.SystemMessage("s"),
        lc.AIMessage("a", tool_calls=[{"id": "c", "name": "t", "args": {"x": 1}, "type": "tool_call"}]),
        lc.AIMessageChunk(content="a", tool_call_chunks=[tool_call_chunk(name="t", args="{", id="c", index=0)]),
        lc.ToolMessage("t", tool_call_id="c", artifact={"k": [1]}),
        lc.FunctionMessage(content="f", name="f"),
        lc.ChatMessage(content="c", role="r"),
        lc.RemoveMessage(id="7"),
        lc.HumanMessage(content=[{"type": "text", "text": "x"}], extra_member=3),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_message_is_one_flat_object(message: lc.BaseMessage) -> None:
    assert through(message) == message.model_dump()
    assert through(message)["type"] == message.type


def test_a_message_has_its_members_in_the_order_of_the_protocol() -> None:
    members = list(through(lc.AIMessage("a")))
    assert members == [
        *("content", "additional_kwargs", "response_metadata", "type", "name", "id"),
        *("tool_calls", "invalid_tool_calls", "usage_metadata"),
    ]


def test_a_message_inside_a_model_keeps_the_members_of_its_own_class() -> None:
    card = Card(title="t", author=lc.AIMessage("a", id="1"))
    assert through(card)["author"] == lc.AIMessage("a", id="1").model_dump()


def test_a_secret_stays_secret() -> None:
    assert b"hush" not in dumps(Card(title="t"))


def test_a_serializer_that_raises_spoils_only_its_own_value() -> None:
    assert through({"bad": Grumpy(), "good": 1}) == {"bad": "Grumpy(n=1)", "good": 1}


def test_cycles_are_cut_even_where_they_branch() -> None:
    node: list[Any] = []
    node.append([node, node])
    assert through(node) == [["<a cycle>", "<a cycle>"]]


def test_what_is_nested_too_deeply_is_replaced_and_the_rest_is_written() -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    written = through({"deep": deep, "near": 1})
    assert written["near"] == 1
    depth = 0
    inner: Any = written["deep"]
    while isinstance(inner, list):
        depth, inner = depth + 1, cast("list[Any]", inner)[0]
    assert depth == MAX_DEPTH - 1
    assert inner == "<list, nested too deeply>"


def test_a_long_repr_is_cut() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 10_000

    assert len(through(Long())) < 600


def test_loading_is_strict() -> None:
    for text in (b"NaN", b'"\\ud800"', b"{", b"", b"[1,]", b'"\xff"'):
        with pytest.raises(ValueError, match=r".*"):
            loads(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # surrogates and U+0000 are replaced on purpose; see the table above
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"])), inner),
    max_leaves=30,
)


@given(JSON)
def test_json_comes_back_unchanged(value: Any) -> None:
    assert through(value) == value


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.uuids()
    | st.datetimes() | st.timedeltas() | st.decimals() | st.complex_numbers()
    | st.builds(Nameless) | st.builds(Grumpy) | st.builds(lc.HumanMessage, content=st.text(st.characters())),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.builds(Pair, inner, inner)
    | st.builds(ValueError, inner)
    | st.dictionaries(st.text(st.characters()) | st.integers() | st.none() | st.tuples(st.integers()), inner),
    max_leaves=20,
)  # fmt: skip


@given(ODD)
def test_anything_becomes_valid_json_without_characters_postgres_refuses(value: Any) -> None:
    written = orjson.loads(dumps(value))
    assert b"\\u0000" not in orjson.dumps(written).replace(b"\\\\", b"")
