"""Names and schemas of assistants as tools, whatever they are called and whatever their graphs take."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from waystation.catalog import default_assistant_id
from waystation.runs.tool_shapes import id_range, input_schema, output_schema, takes_object, tool_name
from waystation_db.tools import ToolRow

SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def row(name: str, *, graph_id: str = "g", default: bool = False) -> ToolRow:
    assistant_id = str(default_assistant_id(graph_id)) if default else str(uuid.uuid4())
    return ToolRow(assistant_id, graph_id, name, None)


@pytest.mark.parametrize("name", ["plain", "Büro & Co.", "", "   ", "日本語", "a" * 300, "__", "x/y:z", "\x00"])
def test_a_name_is_safe_for_every_client_and_leads_back(name: str) -> None:
    for made in (row(name), row("renamed", graph_id=name or "g", default=True)):
        tool = tool_name(made)
        assert SAFE.fullmatch(tool)
        if tool != made.graph_id:
            span = id_range(tool)
            assert span is not None
            assert span[0] <= made.assistant_id <= span[1]


def test_names_of_one_word_differ() -> None:
    assert len({tool_name(row("same")) for _ in range(20)}) == 20
    assert tool_name(row("renamed", graph_id="agent", default=True)) == "agent"


@pytest.mark.parametrize(
    ("schema", "takes"),
    [
        (None, True),
        ({}, True),
        ({"type": "object", "properties": {"n": {"type": "integer"}}}, True),
        ({"$ref": "#/$defs/In", "$defs": {"In": {"type": "object", "properties": {"n": {}}}}}, True),
        ({"type": "integer"}, False),
        ({"type": "array", "items": {"$ref": "#/$defs/In"}, "$defs": {"In": {"type": "string"}}}, False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, False),
    ],
)
def test_a_tool_takes_and_gives_an_object(schema: dict[str, Any] | None, takes: bool) -> None:
    assert takes_object(schema) is takes
    made = input_schema(schema)
    assert made["type"] == "object"
    assert ("input" in made.get("required", [])) is not takes
    if schema and "$defs" in schema:
        assert made["$defs"] == schema["$defs"]
    given = output_schema(schema)
    if given is not None:
        assert given["type"] == "object"
        assert "required" not in given
        assert ("result" in given["properties"]) is not takes
