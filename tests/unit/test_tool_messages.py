"""Messages in a tool's schema are short, and everything else is as it was."""

from __future__ import annotations

import json
from typing import Annotated, Any

import jsonschema_rs
from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from waystation.runs.tool_messages import MESSAGE, with_short_messages
from waystation.runs.tool_shapes import input_schema, output_schema


class Address(TypedDict):
    city: str


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    last: AnyMessage | None
    address: Address


def schema_of(state: Any) -> dict[str, Any]:
    builder: Any = StateGraph(state)
    builder.add_node("node", lambda _: {}).add_edge(START, "node").add_edge("node", END)  # pyright: ignore[reportUnknownLambdaType]
    return builder.compile().get_input_jsonschema()


def test_a_union_of_messages_becomes_one_short_message() -> None:
    short = with_short_messages(schema_of(State))
    assert short["properties"]["messages"]["items"] == MESSAGE
    assert len(json.dumps(short)) < 2000 < len(json.dumps(schema_of(State)))


def test_what_models_write_fits() -> None:
    schema = input_schema(schema_of(State))
    given = {"messages": [{"role": "user", "content": "hi"}], "address": {"city": "Ulm"}}
    assert jsonschema_rs.is_valid(schema, given)
    assert not jsonschema_rs.is_valid(schema, {"messages": ["hi"]})
    assert not jsonschema_rs.is_valid(schema, {"address": {"city": 7}})


def test_other_definitions_stay() -> None:
    assert list(with_short_messages(schema_of(State))["$defs"]) == ["Address"]


def test_other_choices_beside_messages_stay() -> None:
    options = with_short_messages(schema_of(State))["properties"]["last"]["anyOf"]
    assert {"type": "null"} in options
    assert MESSAGE in options


def test_a_schema_without_messages_is_left_alone() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}
    assert with_short_messages(schema) is schema


def test_an_answer_is_described_as_shortly() -> None:
    schema = output_schema(schema_of(State))
    assert schema is not None
    assert len(json.dumps(schema)) < 2500
