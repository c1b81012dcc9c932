"""One-dimensional Postgres arrays in their binary form, made in one pass.

psycopg's own list dumper looks at every element's type twice; a group commit sends thousands of elements a second, all
of a type known beforehand. The wire form is that of `array_send` in Postgres: three words (dimensions, has nulls,
element oid), length and lower bound, then each element behind its length, -1 for null.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEAD = Struct("!iiIii").pack
_LENGTH = Struct("!i").pack
_INT = Struct("!ii").pack
_NULL = _LENGTH(-1)
_EMPTY = Struct("!iiI").pack

_BYTEA, _INT4, _TEXT, _JSONB = 17, 23, 25, 3802
_JSONB_VERSION = b"\x01"


class ByteaArray(bytes):
    """A bytea[] as it goes over the wire."""


class IntArray(bytes):
    """An int4[] as it goes over the wire."""


class TextArray(bytes):
    """A text[] as it goes over the wire."""


class JsonbArray(bytes):
    """A jsonb[] as it goes over the wire."""


def text_array(values: Sequence[str | None]) -> TextArray:
    """Encode strings. Raises UnicodeEncodeError for a lone surrogate, which UTF-8 has no form for."""
    parts = [_head(_TEXT, len(values))]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            data = value.encode()
            parts.append(_LENGTH(len(data)))
            parts.append(data)
    return TextArray(b"".join(parts))


def bytea_array(values: Sequence[bytes]) -> ByteaArray:
    """Encode byte strings."""
    parts = [_head(_BYTEA, len(values))]
    for value in values:
        parts.append(_LENGTH(len(value)))
        parts.append(value)
    return ByteaArray(b"".join(parts))


def jsonb_array(values: Sequence[bytes]) -> JsonbArray:
    """Encode JSON documents that are UTF-8 text already."""
    parts = [_head(_JSONB, len(values))]
    for value in values:
        parts.append(_LENGTH(len(value) + 1))
        parts.append(_JSONB_VERSION)
        parts.append(value)
    return JsonbArray(b"".join(parts))


def int_array(values: Sequence[int]) -> IntArray:
    """Encode 32-bit integers. Raises struct.error beyond them."""
    return IntArray(_head(_INT4, len(values)) + b"".join([_INT(4, value) for value in values]))


def _head(oid: int, length: int) -> bytes:
    # Postgres reads an array of length 0 only without a dimension.
    return _HEAD(1, 1, oid, length, 1) if length else _EMPTY(0, 0, oid)


class _Ready(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


def _register(kind: type[bytes], array_oid: int) -> None:
    # The classes are ours alone, so that registering them changes nothing for other users of psycopg.
    psycopg.adapters.register_dumper(kind, type(f"{kind.__name__}Dumper", (_Ready,), {"oid": array_oid}))


_register(ByteaArray, 1001)
_register(IntArray, 1007)
_register(TextArray, 1009)
_register(JsonbArray, 3807)
