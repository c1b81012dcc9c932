"""What one caller asks the store for at once, and JSON as its table has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from langgraph.store.base import Op

from waystation_db.store_names import Scope
from waystation_db.store_vectors import Text

_LONGEST_INTEGER = 60
_HAS_LONG_NUMBER = re.compile(r"\d{60}")


@dataclass(slots=True)
class Unit:
    """Operations of one caller of one tenant, with what was made ready for them before a connection is needed."""

    scope: Scope
    operations: Sequence[Op]
    vectors: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """By text."""
    texts: dict[int, list[Text]] = field(default_factory=dict[int, list[Text]])
    """By the place of the put."""
    values: dict[int, str] = field(default_factory=dict[int, str])
    """JSON, by the place of the put."""
    conditions: dict[int, str] = field(default_factory=dict[int, str])
    """JSON, by the place of the search."""


Placed = tuple[int, int, Unit, Op]
"""An operation: which unit of a batch, which place in it."""


def operations_of(units: Sequence[Unit], *kinds: type[Op]) -> list[Placed]:
    """The operations of these kinds: which unit, which place in it."""
    return [
        (which, place, unit, op)
        for which, unit in enumerate(units)
        for place, op in enumerate(unit.operations)
        if isinstance(op, kinds)
    ]


def encode(value: Any) -> str:
    """JSON as Postgres takes it. Raises TypeError or ValueError for what has no form there, U+0000 apart."""
    given = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
    text = json.dumps(given, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text.encode()  # a lone surrogate, which is a ValueError
    return text


def decode(value: str) -> Any:
    """The very numbers that were put. Postgres writes 1e300 with all its zeros: such ones are floats again."""
    return json.loads(value, parse_int=_number) if _HAS_LONG_NUMBER.search(value) else json.loads(value)


def _number(text: str) -> int | float:
    return float(text) if len(text) > _LONGEST_INTEGER else int(text)
