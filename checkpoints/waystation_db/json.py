"""Python values as JSON bytes, whatever a graph put into its state: one orjson pass, and never an exception.

Messages are flat objects with `type` among their members, as everywhere in the protocol. What no JSON can carry is
replaced: NaN and infinities by null, lone surrogates and U+0000 (which Postgres refuses) by U+FFFD, anything unknown by
its repr.

    value ──orjson──▶ bytes                                   nearly always
              │ refused, or a U+0000 is in it
              └──▶ rebuilt with plain containers ──▶ bytes    slow, and safe
"""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

import orjson
from langchain_core import messages as lc
from langgraph.types import Send
from pydantic import BaseModel

MAX_DEPTH: Final = 200
"""Levels of nesting that are written; orjson's own limit is 254. What lies deeper is replaced by a sentence."""

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY
_MAX_REPR: Final = 500
_EXACT_INTEGERS: Final = range(-(2**63), 2**64)
_MAX_INTEGER_BITS: Final = 1000  # more is infinite to those who read numbers as doubles

# Types whose instance dictionary is their JSON object already; a subclass may serialize itself otherwise.
_FLAT_MESSAGES: Final[frozenset[type]] = frozenset(
    {
        *(lc.AIMessage, lc.HumanMessage, lc.SystemMessage, lc.ToolMessage, lc.FunctionMessage, lc.ChatMessage),
        *(lc.AIMessageChunk, lc.HumanMessageChunk, lc.SystemMessageChunk, lc.ToolMessageChunk),
        *(lc.FunctionMessageChunk, lc.ChatMessageChunk, lc.RemoveMessage),
    }
)
_SHOWN_AS_TEXT: Final = (PurePath, UUID, IPv4Address, IPv6Address, IPv4Network, IPv6Network)


def dumps(value: Any) -> bytes:
    """Compact JSON of any Python value. Never raises; what cannot be shown is replaced (see above)."""
    try:
        data = orjson.dumps(value, plain, _OPTIONS)
    except (TypeError, ValueError, RecursionError):
        return _dumps_guarded(value)
    return _dumps_guarded(value) if b"\\u0000" in data else data


def loads(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text, strictly: no NaN, no lone surrogates. Raises ValueError."""
    return orjson.loads(data)


def plain(value: Any) -> Any:
    """One level of what orjson does not know, in terms that it or this function know. Never raises."""
    if type(value) in _FLAT_MESSAGES:
        extra: dict[str, Any] | None = value.__pydantic_extra__
        return {**value.__dict__, **extra} if extra else value.__dict__
    try:
        return _plain(value)
    except Exception:  # user code runs here (serializers, properties, reprs): whatever it does, the rest is written
        return _repr(value)


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump(serialize_as_any=True, warnings=False)
        case BaseException():
            return {"error": type(value).__name__, "message": str(value)}
        case Send():
            return {"node": value.node, "args": value.arg}
        case tuple() if hasattr(cast("Any", value), "_asdict"):
            return cast("Any", value)._asdict()
        case set() | frozenset() | deque() | tuple():
            return list(cast("set[Any]", value))
        case Mapping():
            return dict(cast("Mapping[Any, Any]", value))
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(cast("bytes", value)).decode()
        case Decimal() | float():
            return float(value)
        case timedelta():
            return value.total_seconds()
        case date() | time():
            return value.isoformat()
        case re.Pattern():
            return cast("re.Pattern[Any]", value).pattern
        case _ if isinstance(value, _SHOWN_AS_TEXT):
            return str(value)
        case _ if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
            return value.tolist()
        case _:
            return _repr(value)


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # a repr is user code; the class name always is at hand
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}…"


def _dumps_guarded(value: Any) -> bytes:
    try:
        return orjson.dumps(_rebuilt(value, set()))
    except Exception:  # the last line: a hostile object that changes while it is read, or a stack that is full already
        return orjson.dumps(f"<{type(value).__name__} that cannot be written as JSON>")


def _rebuilt(value: Any, above: set[int]) -> Any:
    """The same value of plain containers, texts and numbers only. `above`: the ids of the containers around it."""
    match value:
        case None | bool() | orjson.Fragment():
            return value
        case float():
            return float(value)
        case Enum():
            return _rebuilt(value.value, above)
        case str():
            return _text(value)
        case int():
            return _integer(value)
        case _:
            pass
    if id(value) in above:
        return "<a cycle>"
    if len(above) >= MAX_DEPTH:
        return f"<{type(value).__name__}, nested too deeply>"
    above.add(id(value))
    try:
        return _rebuilt_members(value, above)
    finally:
        above.discard(id(value))


def _rebuilt_members(value: Any, above: set[int]) -> Any:
    if isinstance(value, dict):
        return {_key(k): _rebuilt(v, above) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list) or type(value) is tuple:
        return [_rebuilt(v, above) for v in cast("list[Any]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        shown = [f.name for f in fields(value) if not f.name.startswith("_")]
        return {name: _rebuilt(getattr(value, name, None), above) for name in shown}
    return _rebuilt(plain(value), above)


def _key(key: Any) -> str:
    match key:
        case str():
            return _text(key)
        case Enum():
            return _key(key.value)
        case None | bool():
            return orjson.dumps(key).decode()
        case date() | time():
            return key.isoformat()
        case _:
            return _text(str(key) if isinstance(key, int | float | UUID) else _repr(key))


def _text(text: str) -> str:
    """Two halves of a surrogate pair become the character they mean; a lone one and U+0000 become U+FFFD."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")


def _integer(number: int) -> Any:
    if number in _EXACT_INTEGERS:
        return int(number)
    if number.bit_length() <= _MAX_INTEGER_BITS:
        return orjson.Fragment(int.__repr__(number).encode())
    return f"<an integer of {number.bit_length()} bits>"
