"""JSON Schemas of a graph: what goes in, what comes out, its state, its config and its context.

A schema that cannot be made is null, never an error: the types are the user's, and many have no JSON form.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NotRequired, Required, cast, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

import typing_extensions
from langgraph.channels.base import BaseChannel
from langgraph.graph.state import CompiledStateGraph
from pydantic import Field, TypeAdapter, create_model

from waystation.catalog.factories import Graph

Schema = dict[str, Any]

_log = logging.getLogger(__name__)

_made: WeakKeyDictionary[Graph, dict[str, Schema | None]] = WeakKeyDictionary()
"""Of graphs that live on; making the schemas of one with messages takes 40 ms. A factory's graphs are gone at once."""


async def schemas(graph: Graph) -> dict[str, Schema | None]:
    """`input_schema`, `output_schema`, `state_schema`, `config_schema`, `context_schema`. Made in a thread, once for
    each graph: what is returned is not to be changed."""
    known = _made.get(graph)
    if known is None:
        known = _made[graph] = await asyncio.to_thread(_schemas, graph)
    return known


async def subgraph_schemas(
    graph: Graph, *, namespace: str | None = None, recurse: bool = False
) -> dict[str, dict[str, Schema | None]]:
    """Namespace (`child`, or `child|grandchild` with `recurse`) → its schemas. Unknown namespaces give `{}`."""
    # A remote graph is no Pregel and has no schemas here: all null.
    untyped = cast(Any, graph)  # the library leaves this method's types partly open
    subgraphs: Iterator[tuple[str, Graph]] = untyped.get_subgraphs(namespace=namespace, recurse=recurse)
    return {name: await schemas(subgraph) for name, subgraph in subgraphs}


def _schemas(graph: Graph) -> dict[str, Schema | None]:
    context = _try("context", lambda: _context(graph))
    return {
        "input_schema": _try("input", lambda: _declared(graph, "input_schema") or graph.get_input_jsonschema()),
        "output_schema": _try("output", lambda: _declared(graph, "output_schema") or graph.get_output_jsonschema()),
        "state_schema": _try("state", lambda: _state(graph)),
        # With a context schema `configurable` holds the same content; without one anything may stand there.
        "config_schema": {} if getattr(graph, "context_schema", 0) is None else context,
        "context_schema": context,
    }


def _try(which: str, make: Callable[[], Schema | None]) -> Schema | None:
    try:
        return make()
    except Exception as e:  # the user's types: whatever pydantic or their own hooks raise means that there is no schema
        _log.debug("no schema", extra={"schema": which, "reason": f"{type(e).__name__}: {e}"})
        return None


def _declared(graph: Graph, which: str) -> Schema | None:
    """Of the TypedDict that a StateGraph was made with, where the library would refuse to describe it."""
    declared = getattr(graph.builder, which) if isinstance(graph, CompiledStateGraph) else None
    return _describe(declared) if _is_old_typed_dict(declared) else None


def _context(graph: Graph) -> Schema | None:
    declared = cast(object, graph.context_schema)
    return None if declared is None else _describe(declared)


def _describe(declared: object) -> Schema:
    return TypeAdapter[Any](_TypedDicts().renew(declared)).json_schema()


def _state(graph: Graph) -> Schema:
    """Of the channels: what `values` of a thread's state may hold."""
    channels = cast(Mapping[str, BaseChannel[Any, Any, Any]], graph.channels)  # pyright: ignore  # partly untyped there
    if isinstance(graph.stream_channels, str):
        return _describe(channels[graph.stream_channels].UpdateType)
    # Made-up field names: a channel may be called `_private`, `copy` or `model_config`, which pydantic refuses.
    typed_dicts = _TypedDicts()
    fields: dict[str, Any] = {
        f"channel_{i}": (typed_dicts.renew(channels[name].UpdateType), Field(default=None, alias=name))
        for i, name in enumerate(graph.stream_channels_list)
    }
    return create_model(graph.get_name("State"), **fields).model_json_schema(by_alias=True)


def _is_old_typed_dict(declared: object) -> bool:
    """Before Python 3.12 pydantic refuses the TypedDicts of `typing`, which most people use."""
    return sys.version_info < (3, 12) and typing.is_typeddict(declared)


class _TypedDicts:
    """Replaces the TypedDicts of `typing` by the same ones of `typing_extensions`, each by one."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def renew(self, declared: Any) -> Any:
        """`declared`, with all that are in it replaced."""
        if _is_old_typed_dict(declared):
            return self._made.get(id(declared)) or self._make(declared)
        arguments, origin = get_args(declared), get_origin(declared)
        if origin is Annotated:
            return Annotated[(self.renew(arguments[0]), *arguments[1:])]
        renewed = tuple(self.renew(a) for a in arguments)
        if all(new is old for new, old in zip(renewed, arguments, strict=True)):
            return declared
        if origin is UnionType:
            return functools.reduce(lambda a, b: a | b, renewed)
        return declared.copy_with(renewed) if _is_typings(declared) else origin[renewed]

    def _make(self, declared: Any) -> Any:
        annotations = {
            name: _presence(declared, name, hint)[self.renew(_bare(hint))]
            for name, hint in get_type_hints(declared, include_extras=True).items()
        }
        made = cast(Any, typing_extensions.TypedDict)(declared.__name__, annotations)
        made.__doc__, made.__module__ = declared.__doc__, declared.__module__
        self._made[id(declared)] = made
        return made


def _is_typings(declared: Any) -> bool:
    """`List[…]`, `Optional[…]` and the like, in contrast to `list[…]`."""
    return hasattr(declared, "copy_with")


def _presence(declared: Any, name: str, hint: Any) -> Any:
    """`Required` or `NotRequired`. What is written at the key counts first: `__required_keys__` misses it where
    annotations are texts."""
    written = get_origin(hint)
    if written in (Required, NotRequired):
        return written
    return Required if name in declared.__required_keys__ else NotRequired


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint
