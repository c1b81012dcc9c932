"""The `filter` of a search as conditions that one fixed statement can test.

    {"n": {"$gte": 2, "$lt": 9}, "by": {"name": "ada"}}
        ──▶  n gte 2 · n lt 9 · by is an object · by.name eq "ada"

A field that is not there counts as null. Numbers are compared as numbers, texts by code point; things of two kinds
have no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

MAX_CONDITIONS = 200

_OPERATORS = {"$eq": "eq", "$ne": "ne", "$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


class InvalidFilter(ValueError):
    """The filter of a search has no meaning; the message names the field."""


def conditions_of(wanted: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Conditions that must all hold, as objects with `path`, `op` and `value`.

    Raises:
        InvalidFilter: an unknown operator, operators beside fields, too many conditions.
    """
    found = list(_conditions(wanted or {}, ()))
    if len(found) > MAX_CONDITIONS:
        raise InvalidFilter(f"filter has more than {MAX_CONDITIONS} conditions")
    return found


def _conditions(fields: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for name, wanted in fields.items():
        at = (*path, name)
        if not isinstance(wanted, Mapping):
            yield _condition(at, "eq", wanted)
            continue
        members = cast("Mapping[str, Any]", wanted)
        if any(member.startswith("$") for member in members):
            yield from (_condition(at, _operator(operator, at), value) for operator, value in members.items())
        else:
            yield _condition(at, "object", None)
            yield from _conditions(members, at)


def _operator(name: str, path: tuple[str, ...]) -> str:
    try:
        return _OPERATORS[name]
    except KeyError:
        raise InvalidFilter(
            f"filter.{'.'.join(path)[:200]}: {name[:80]!r} is no operator; expected {', '.join(_OPERATORS)}"
        ) from None


def _condition(path: tuple[str, ...], op: str, value: Any) -> dict[str, Any]:
    return {"path": list(path), "op": op, "value": value}
