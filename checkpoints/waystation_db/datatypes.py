"""Which Python types are data: those that a graph's state schema names, and whether a name found in stored bytes can
be data at all. Looks only at what is loaded already; imports and calls nothing."""

from __future__ import annotations

import dataclasses
import sys
from datetime import date, time, timedelta, tzinfo
from enum import Enum
from pathlib import PurePath
from typing import Any, get_args, get_type_hints
from weakref import WeakSet

from pydantic import BaseModel
from typing_extensions import is_typeddict

from waystation_db.errors import CorruptCheckpoint

_PLAIN = (BaseModel, Enum, PurePath, date, time, timedelta, tzinfo, set, frozenset)


def types_of_graph(graph: Any, *, known: WeakSet[type] | None = None) -> set[type]:
    """Return the data types that the state of a compiled graph and of its subgraphs can hold, by their schemas.

    Schemas in `known` are passed over and new ones put there, which makes it cheap for graphs made anew for each run.
    """
    known = WeakSet() if known is None else known
    found: set[type] = set()
    seen: dict[int, Any] = {}
    graphs: list[Any] = [graph, *(subgraph for _, subgraph in graph.get_subgraphs(recurse=True))]
    for schema in (schema for one in graphs for schema in _schemas(one)):
        if not isinstance(schema, type):
            _collect(schema, found, seen)
        elif schema not in known:
            known.add(schema)
            _collect(schema, found, seen)
    return found


def _schemas(graph: Any) -> list[Any]:
    """What a graph was built from, or, when it was not built but written down, what its channels hold."""
    if builder := getattr(graph, "builder", None):
        return list(builder.schemas)
    channels = getattr(graph, "channels", {}).values()
    return [getattr(channel, kind, None) for channel in channels for kind in ("ValueType", "UpdateType")]


def is_harmless(name: tuple[str, str]) -> bool:
    """Whether a name that is on no list may be meant as data: a class, or something that is not loaded (any more).

    A function, or what is no data class of the standard library, can only be meant to run code.
    """
    module = sys.modules.get(name[0])
    # Not getattr: a module's own __getattr__ is code.
    found: Any = None if module is None else vars(module).get(name[1])
    is_standard = name[0].partition(".")[0] in sys.stdlib_module_names
    if found is None:
        return not is_standard
    return isinstance(found, type) and (not is_standard or _is_data(found))


def peek_name(data: bytes) -> tuple[str, str]:
    """Read the module and the name at the start of a stored object, without building anything behind them.

    The bytes are a msgpack array that begins with two strings. Raises CorruptCheckpoint when they are not.
    """
    if not data or not 0x92 <= data[0] <= 0x9F:
        raise CorruptCheckpoint("a stored object does not begin with its type")
    module, position = _text(data, 1)
    name, _ = _text(data, position)
    return module, name


def _text(data: bytes, position: int) -> tuple[str, int]:
    kind = data[position] if position < len(data) else 0
    if 0xA0 <= kind <= 0xBF:  # fixstr
        start, length = position + 1, kind & 0x1F
    elif kind == 0xD9 and position + 1 < len(data):  # str 8
        start, length = position + 2, data[position + 1]
    else:
        raise CorruptCheckpoint("a stored object does not name its type")
    end = start + length
    try:
        text = data[start:end].decode()
    except UnicodeDecodeError:
        raise CorruptCheckpoint("a stored object does not name its type") from None
    return text, end


def _collect(annotation: Any, found: set[type], seen: dict[int, Any]) -> None:
    if annotation is None or id(annotation) in seen:
        return
    seen[id(annotation)] = annotation  # kept, so that its id is not given to another
    for inner in (*get_args(annotation), *_aliased(annotation)):
        _collect(inner, found, seen)
    if not isinstance(annotation, type):
        return
    if is_data := _is_data(annotation):
        found.add(annotation)
    if is_data or is_typeddict(annotation):
        for hint in _hints(annotation):
            _collect(hint, found, seen)
    # A field declared as a class of the user's may hold any class derived from it.
    if is_data and annotation not in _PLAIN:
        for derived in annotation.__subclasses__():
            _collect(derived, found, seen)


def _aliased(annotation: Any) -> list[Any]:
    """What stands behind a NewType, a type alias or a type variable."""
    names = ("__supertype__", "__value__", "__bound__")
    constraints = getattr(annotation, "__constraints__", ())
    return [*(getattr(annotation, name, None) for name in names), *constraints]


def _hints(cls: type) -> list[Any]:
    try:
        return list(get_type_hints(cls, include_extras=True).values())
    except Exception:  # a name that cannot be resolved here: then what pydantic or dataclasses know of the fields
        fields: dict[str, Any] = getattr(cls, "model_fields", {})
        return [*(field.annotation for field in fields.values()), *_dataclass_types(cls)]


def _dataclass_types(cls: type) -> list[Any]:
    return [field.type for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _is_data(cls: type) -> bool:
    is_pydantic_v1 = "__fields__" in vars(cls)
    is_named_tuple = tuple in cls.__mro__ and "_fields" in vars(cls)
    return dataclasses.is_dataclass(cls) or is_pydantic_v1 or is_named_tuple or issubclass(cls, _PLAIN)
