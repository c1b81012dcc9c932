"""LangChain's messages in a tool's schema, as a model can read and write them.

The schema that a graph gives describes every kind of message with every member, 20 KB of it, in each tool and once more
for its answer; whoever lists the tools pays for it with each call of a model. And it does not allow the short form
`{"role", "content"}`, which every graph takes.
"""

from __future__ import annotations

from typing import Any, Final, cast

Schema = dict[str, Any]

MESSAGE: Final[Schema] = {
    "title": "Message",
    "type": "object",
    "properties": {
        "role": {"type": "string", "enum": ["user", "assistant", "system", "tool"]},
        "content": {"description": "A text, or a list of content blocks."},
    },
    "required": ["content"],
}

_KINDS: Final = frozenset({"AIMessage", "HumanMessage", "SystemMessage", "ToolMessage"})
_REF: Final = "#/$defs/"


def with_short_messages(schema: Schema) -> Schema:
    """The schema with MESSAGE in the place of every union of LangChain's messages, and no definition that is left
    without use."""
    definitions = cast("dict[str, Schema]", schema.get("$defs", {}))
    if not definitions.keys() >= _KINDS:
        return schema
    bare = cast("Schema", _shortened({k: v for k, v in schema.items() if k != "$defs"}))
    kept: dict[str, Schema] = {}
    wanted = _named_in(bare)
    while wanted:
        name = wanted.pop()
        if name in definitions and name not in kept:
            kept[name] = cast("Schema", _shortened(definitions[name]))
            wanted |= _named_in(kept[name])
    return {**bare, "$defs": kept} if kept else bare


def _shortened(node: Any) -> Any:
    if isinstance(node, list):
        return [_shortened(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    members = cast("Schema", node)
    for union in ("oneOf", "anyOf"):
        options = cast("list[Any]", members.get(union) or [])
        if {_name(option) for option in options} >= _KINDS:
            others = [_shortened(o) for o in options if not _name(o).removesuffix("Chunk").endswith("Message")]
            return {"anyOf": [MESSAGE, *others]} if others else MESSAGE
    return {name: _shortened(value) for name, value in members.items()}


def _name(option: Any) -> str:
    """The definition that an option refers to; empty for one that is written out."""
    return str(cast("Schema", option).get("$ref", "")).removeprefix(_REF) if isinstance(option, dict) else ""


def _named_in(node: Any) -> set[str]:
    """The definitions that a schema refers to."""
    if isinstance(node, list):
        return {name for item in cast("list[Any]", node) for name in _named_in(item)}
    if not isinstance(node, dict):
        return set()
    members = cast("Schema", node)
    found = {name for value in members.values() for name in _named_in(value)}
    ref = members.get("$ref")
    return found | {ref.removeprefix(_REF)} if isinstance(ref, str) else found
