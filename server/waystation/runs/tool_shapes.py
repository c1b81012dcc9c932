"""Assistants as tools: their names, and the JSON Schemas of what goes in and comes out.

A tool takes and gives an object. A graph that takes something else has it in `input`; one that gives something else
has it in `result`.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from waystation.catalog import default_assistant_id
from waystation.runs.tool_messages import with_short_messages
from waystation_db.tools import ToolRow

Schema = dict[str, Any]

WRAPPED_INPUT: Final = "input"
WRAPPED_OUTPUT: Final = "result"
INTERRUPT: Final = "__interrupt__"

_MAX_BASE = 50  # with what makes it unique, well within the 64 characters that the strictest clients take
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_ENDS_IN_ID = re.compile(r"_([0-9a-f]{8})\Z")

_INTERRUPTS: Final[Schema] = {
    "description": "Only there when the run waits for an answer: what it asks.",
    "type": "array",
    "items": {"type": "object"},
}


def tool_name(row: ToolRow) -> str:
    """The name of an assistant's tool: its graph's for the one that every graph has, else its own and the beginning of
    its id. It is safe for all clients, and no other assistant that comes or goes changes it."""
    is_default = row.assistant_id == str(default_assistant_id(row.graph_id))
    base = row.graph_id if is_default else row.name
    safe = _UNSAFE.sub("_", base)[:_MAX_BASE].strip("_") or "assistant"
    return safe if is_default and safe == base else f"{safe}_{row.assistant_id[:8]}"


def id_range(name: str) -> tuple[str, str] | None:
    """The first and the last id that an assistant of this tool's name may have; None: the name tells none."""
    found = _ENDS_IN_ID.search(name)
    if found is None:
        return None
    return f"{found[1]}-0000-0000-0000-000000000000", f"{found[1]}-ffff-ffff-ffff-ffffffffffff"


def input_schema(schema: Schema | None) -> Schema:
    """What a tool takes."""
    schema = with_short_messages(_resolved(schema or {}))
    if not schema:
        return {"type": "object"}
    if takes_object(schema):
        return {**schema, "type": "object"}
    return _wrapping(schema, WRAPPED_INPUT) | {"required": [WRAPPED_INPUT]}


def output_schema(schema: Schema | None) -> Schema | None:
    """What a tool gives, as advice: clients refuse a result that does not fit, and nothing makes a graph keep to the
    types that it declares. So every member is described and none is insisted on."""
    if not schema:
        return None
    schema = with_short_messages(_resolved(schema))
    if not takes_object(schema):
        schema = _wrapping(schema, WRAPPED_OUTPUT)
    members = cast("dict[str, Any]", schema.get("properties", {}))
    advice: Schema = {name: {"anyOf": [member, {}]} for name, member in members.items()}
    kept = {k: v for k, v in schema.items() if k in ("$defs", "title", "description")}
    return {**kept, "type": "object", "properties": {**advice, INTERRUPT: _INTERRUPTS}}


def takes_object(schema: Schema | None) -> bool:
    """Whether a schema is one of objects, or of anything."""
    if not schema:
        return True
    schema = _resolved(schema)
    return schema.get("type") == "object" or ("type" not in schema and "properties" in schema)


def _resolved(schema: Schema) -> Schema:
    """A schema that is only a reference to one of its definitions, as that definition."""
    ref, definitions = schema.get("$ref"), cast("dict[str, Schema]", schema.get("$defs", {}))
    name = ref.removeprefix("#/$defs/") if isinstance(ref, str) else None
    return {**definitions[name], "$defs": definitions} if name in definitions else schema


def _wrapping(schema: Schema, member: str) -> Schema:
    """An object with the schema's value in one member; definitions stay at the root, where references look for them."""
    bare = {k: v for k, v in schema.items() if k != "$defs"}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {"type": "object", "properties": {member: bare}, **definitions}
