"""Values to bytes and back. What comes back from the database may have been written by an attacker, so only types on
a list are built: LangGraph's safe ones, those of the graphs' own state schemas, and those named in `langgraph.json`.

    value ──dumps_typed──▶ (type, bytes) ──▶ row ──▶ loads_typed ──▶ the same value
                                                         a class that is not listed: its plain data, as LangGraph does
                                                         anything else (functions, pickle, damage): CorruptCheckpoint

The bytes are LangGraph's own (JsonPlusSerializer), so that its savers read what this one wrote. Nothing is imported
and nothing called on behalf of a type that is not listed.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterable
from typing import Any, Self, cast
from weakref import WeakSet

import ormsgpack
from langchain_core import messages as lc
from langchain_core.documents import Document
from langchain_core.load.load import Reviver
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot  # pyright: ignore[reportPrivateUsage]  # its only home
from langgraph.types import Send

from waystation_db.datatypes import is_harmless, peek_name, types_of_graph
from waystation_db.errors import CorruptCheckpoint

ModuleName = tuple[str, ...]

logger = logging.getLogger(__name__)

# What the JSON form of old checkpoints may build; LangChain's own wider default also builds prompts and models.
_REVIVED = (
    *(lc.AIMessage, lc.ChatMessage, lc.FunctionMessage, lc.HumanMessage, lc.SystemMessage, lc.ToolMessage),
    *(lc.AIMessageChunk, lc.HumanMessageChunk, lc.SystemMessageChunk, lc.ToolMessageChunk),
    *(lc.RemoveMessage, Document),
)
_ALSO_SAFE = {
    ("pydantic.types", "SecretStr"),
    ("pydantic.types", "SecretBytes"),
    ("langgraph.store.base", "SearchItem"),
}
_FROM_TEXT = "fromisoformat"  # the one method that values are made by


class CheckpointSerde(JsonPlusSerializer):
    """LangGraph's serializer with a closed list of types and no pickle, in either direction."""

    def __init__(
        self,
        *,
        allowed_msgpack_modules: Iterable[ModuleName | type] = (),
        allowed_json_modules: Iterable[ModuleName] = (),
    ) -> None:
        """Both lists are those of `checkpointer.serde` in `langgraph.json`: (module, name) pairs or classes."""
        self._listed: set[ModuleName] = {*SAFE_MSGPACK_TYPES, *_ALSO_SAFE}
        self._schemas: WeakSet[type] = WeakSet()
        self.allow(allowed_msgpack_modules)
        super().__init__(
            pickle_fallback=False,
            allowed_json_modules=tuple(tuple(name) for name in allowed_json_modules) or None,
            allowed_msgpack_modules=None,
            __unpack_ext_hook__=self._build,
        )
        self._thread = threading.local()
        self._warned: set[ModuleName] = set()
        self._revive_message = Reviver(allowed_objects=_REVIVED)

    def allow(self, types: Iterable[ModuleName | type]) -> None:
        """List more types, for every thread of the process."""
        self._listed.update((one.__module__, one.__name__) if isinstance(one, type) else tuple(one) for one in types)

    def allow_graph(self, graph: Any) -> None:
        """List the types of a compiled graph's schemas. Cheap when its schemas are known already."""
        self.allow(types_of_graph(graph, known=self._schemas))

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[ModuleName | type]) -> Self:
        """LangGraph's way to list the types of a graph at run time, in its strict mode."""
        self.allow(extra_allowlist)
        return self

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Build the value. Raises CorruptCheckpoint, and nothing else, whatever the bytes are."""
        self._thread.refusal = None
        try:
            return super().loads_typed(data)
        except Exception as error:
            # ormsgpack forgets what its hook raised.
            reason = self._thread.refusal or error
            raise CorruptCheckpoint(f"a value stored as {data[0]!r} cannot be loaded: {reason}") from error

    def _reviver(self, value: dict[str, Any]) -> Any:
        return self._revive_message(value) if value.get("lc") == 1 else super()._reviver(value)

    def _warn_once(self, name: ModuleName) -> None:
        # Bounded: names come from stored bytes.
        if name not in self._warned and len(self._warned) < 1000:
            self._warned.add(name)
            logger.warning(
                "A stored value is of a type that is not listed and is loaded as plain data; a type that graphs need "
                "can be listed in langgraph.json under checkpointer.serde.allowed_msgpack_modules",
                extra={"type": ".".join(name)},
            )

    def _unpack(self, data: bytes) -> Any:
        return ormsgpack.unpackb(data, ext_hook=self._build, option=ormsgpack.OPT_NON_STR_KEYS)

    def _build(self, code: int, data: bytes) -> Any:
        try:
            return self._object(code, data)
        except CorruptCheckpoint as error:
            self._thread.refusal = error
            raise

    def _object(self, code: int, data: bytes) -> Any:
        if code == jsonplus.EXT_DELTA_SNAPSHOT:
            return _DeltaSnapshot(self._unpack(data))
        if code == jsonplus.EXT_NUMPY_ARRAY:
            return _numpy_array(*self._unpack(data))
        if not jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG <= code <= jsonplus.EXT_PYDANTIC_V2:
            raise CorruptCheckpoint(f"a stored value has the unknown extension {code}")
        name = peek_name(data)
        if name not in self._listed and not is_harmless(name):
            raise CorruptCheckpoint(f"a stored value names {'.'.join(name)}, which is not a type that may be loaded")
        parts = self._unpack(data)
        if code == jsonplus.EXT_METHOD_SINGLE_ARG and parts[3] != _FROM_TEXT:
            raise CorruptCheckpoint(f"a stored value is made by {'.'.join(name)}.{parts[3]}, which may not be called")
        if name not in self._listed:
            self._warn_once(name)
            return parts[2]
        return _construct(code, name, parts[2])


def _construct(code: int, name: ModuleName, payload: Any) -> Any:
    """Build an object of a listed type; the plain data when the class has changed or is gone, as LangGraph does."""
    try:
        cls = getattr(importlib.import_module(name[0]), name[1])
        match code:
            case jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG:
                return cls(payload)
            case jsonplus.EXT_CONSTRUCTOR_POS_ARGS:
                return _send(*payload) if cls is Send else cls(*payload)
            case jsonplus.EXT_CONSTRUCTOR_KW_ARGS:
                return cls(**payload)
            case jsonplus.EXT_METHOD_SINGLE_ARG:
                return getattr(cls, _FROM_TEXT)(payload)
            case _:
                return _pydantic(cls, payload)
    except Exception as error:
        logger.warning(
            "A stored value cannot be rebuilt and is loaded as plain data",
            extra={"type": ".".join(name), "error": type(error).__name__},
        )
        return payload


def _pydantic(cls: Any, fields: dict[str, Any]) -> Any:
    try:
        return cls(**fields)
    except Exception:  # it was valid when it was stored: better as it was than not at all
        return (cls.model_construct if hasattr(cls, "model_construct") else cls.construct)(**fields)


def _send(node: str, arg: Any, timeout: Any = None) -> Send:
    return Send(node, arg) if timeout is None else Send(node, arg, timeout=timeout)


def _numpy_array(dtype: str, shape: tuple[int, ...], order: str, data: bytes) -> Any:
    numpy = cast(Any, importlib.import_module("numpy"))  # optional: whoever stored an array has it
    return numpy.frombuffer(data, dtype=numpy.dtype(dtype)).reshape(shape, order=order)
