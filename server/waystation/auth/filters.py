"""What an `on` handler returns to narrow what a caller sees, as one JSON document for `metadata @> …`.

{"owner": "a"}                          {"owner": "a"}
{"owner": {"$eq": "a"}}                 {"owner": "a"}
{"tags": {"$contains": ["x", "y"]}}     {"tags": ["x", "y"]}     (in any order, among others)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import orjson

_OPERATORS = '"$eq" or "$contains"'


class UnusableFilter(Exception):
    """The filter cannot be honoured; the message says why. Nobody may see anything through it."""


def compile_filter(given: Mapping[str, Any]) -> str:
    """JSON that a resource's metadata must contain.

    Raises:
        UnusableFilter: not one of the forms above.
    """
    wanted = {_name(name): _wanted(name, condition) for name, condition in given.items()}
    try:
        return orjson.dumps(wanted).decode()
    except (TypeError, ValueError) as error:
        raise UnusableFilter(f"it cannot be written as JSON: {error}") from None


def merge_filters(one: str, other: str) -> str | None:
    """Both of two filters; None where no metadata can satisfy both."""
    if "{}" in (one, other):
        return other if one == "{}" else one
    merged: dict[str, Any] = orjson.loads(one)
    for name, wanted in orjson.loads(other).items():
        have = merged.get(name, wanted)
        if isinstance(have, list) and isinstance(wanted, list):
            both = [*cast("list[Any]", have), *cast("list[Any]", wanted)]
            merged[name] = [value for i, value in enumerate(both) if value not in both[:i]]
        elif have != wanted:
            return None
        else:
            merged[name] = wanted
    return orjson.dumps(merged).decode()


def _name(name: object) -> str:
    if not isinstance(name, str) or name.startswith("$"):
        raise UnusableFilter(f"{name!r} is no member of a metadata")
    return _text(name)


def _wanted(name: str, condition: object) -> Any:
    if not isinstance(condition, Mapping):
        return _scalar(name, condition)
    operators = cast("Mapping[str, object]", condition)
    match list(operators.items()):
        case [("$eq", value)]:
            return _scalar(name, value)
        case [("$contains", value)]:
            several = isinstance(value, list | tuple | set | frozenset)
            return [_scalar(name, one) for one in (cast("list[object]", value) if several else [value])]
        case _:
            raise UnusableFilter(f"{name!r} has {sorted(map(str, operators))}: expected {_OPERATORS}")


def _scalar(name: str, value: object) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise UnusableFilter(
        f"{name!r} is compared with a {type(value).__name__}: expected a text, a number or a truth value"
    )


def _text(value: str) -> str:
    if "\0" in value:
        raise UnusableFilter("it has U+0000 in it")
    return str(value)
