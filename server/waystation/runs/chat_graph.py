"""Graphs that one can chat with: assistants as models, and what of a run of theirs is the answer.

A graph with a `messages` state is a model. Its name is the assistant's id, the graph's name for a default assistant, or
the assistant's own name where only one has it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_type_hints
from uuid import UUID

import orjson
from langgraph.prebuilt import ToolNode

from waystation.auth import Principal
from waystation.catalog import Graph, default_assistant_id
from waystation.errors import BadRequest, ModelNotFound, NotFound, WaystationError
from waystation.runs.assistant_bodies import AssistantSearch
from waystation.runs.assistant_graphs import with_graph
from waystation.runs.assistants import get_assistant, search_assistants
from waystation.services import Services
from waystation_db import assistants

Path = tuple[str, ...]

MESSAGES = "messages"
_MOST_MODELS = 1000
_DEEPEST = 5
_NO_MESSAGES = "model: the graph {!r} has no `messages` state, so one cannot chat with it."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Audible:
    """Whose messages are part of the answer: nodes by their path from the root graph.

    `subgraphs` are nodes that are graphs and hand their messages on, `silent` the nodes that execute tools (a model
    that a tool calls is not talking to the user). With `only`, no other node's tokens count.
    """

    subgraphs: frozenset[Path] = frozenset()
    silent: frozenset[Path] = frozenset()
    only: frozenset[str] | None = None

    def reaches_root(self, namespace: Path) -> bool:
        """Whether the graph at `namespace` hands its messages on to the root graph."""
        return all(namespace[: end + 1] in self.subgraphs for end in range(len(namespace)))

    def hears(self, namespace: Path, node: str) -> bool:
        """Whether what a model says in a node goes out while it is said."""
        if self.only is not None and node not in self.only and not self.only.intersection(namespace):
            return False
        return (*namespace, node) not in self.silent and self.reaches_root(namespace)


@dataclass(frozen=True, slots=True)
class ChatGraph:
    """An assistant as a model. `parameters` are the members of its context that a request may fill."""

    assistant_id: str
    graph_id: str
    parameters: frozenset[str]
    audible: Audible


@dataclass(frozen=True, slots=True)
class ChatModel:
    """How an assistant appears in a list of models."""

    id: str
    assistant: Mapping[str, Any]


async def chat_models(services: Services, caller: Principal) -> list[ChatModel]:
    """Every assistant that the caller may see and chat with, and the default ones, which anybody may run by name."""
    body = AssistantSearch(limit=_MOST_MODELS, sort_by="name", sort_order="asc")
    found = orjson.loads((await search_assistants(services, caller, body=body)).body)
    if caller.rules is not None:
        seen = {one["assistant_id"] for one in found}
        others = orjson.loads((await search_assistants(services, _unruled(caller), body=body)).body)
        found += [one for one in others if _is_default(one) and one["assistant_id"] not in seen]
    chats = {graph_id: await _can_chat(services, _unruled(caller), graph_id, found) for graph_id in _graphs_of(found)}
    return [ChatModel(_name_of(one, found), one) for one in found if chats[one["graph_id"]]]


async def chat_model(services: Services, caller: Principal, name: str) -> ChatModel:
    """One of `chat_models`, by any of its names. Raises ModelNotFound, BadRequest."""
    assistant_id = await _assistant_of(services, caller, name)
    caller = _for_name(services, caller, name)
    try:
        assistant = orjson.loads(await get_assistant(services, caller, assistant_id=assistant_id))
    except NotFound:
        raise _unknown(name) from None
    await _look(services, caller, assistant_id)
    return ChatModel(name, assistant)


async def chat_graph(services: Services, caller: Principal, name: str) -> ChatGraph:
    """What a request's `model` means.

    Raises:
        ModelNotFound: nothing the caller may see has that name, or its graph has gone.
        BadRequest: several assistants have it, or one cannot chat with the graph.
    """
    assistant_id = await _assistant_of(services, caller, name)
    try:
        return await _look(services, _for_name(services, caller, name), assistant_id)
    except NotFound:
        raise _unknown(name) from None


async def _look(services: Services, caller: Principal, assistant_id: str) -> ChatGraph:
    async def looked(graph: Graph, assistant: assistants.AssistantGraph) -> ChatGraph:
        if not has_messages(graph):
            raise BadRequest(_NO_MESSAGES.format(assistant.graph_id))
        chosen = services.project.waystation.openai.answer_nodes.get(assistant.graph_id)
        only = frozenset(chosen) if chosen is not None else None
        return ChatGraph(assistant_id, assistant.graph_id, _parameters(graph), audible(graph, only=only))

    return await with_graph(services, caller, assistant_id=assistant_id, look=looked)


async def _can_chat(services: Services, caller: Principal, graph_id: str, found: list[dict[str, Any]]) -> bool:
    """Asked of one assistant for all of its graph: opening a graph may run a factory."""
    one = next(assistant for assistant in found if assistant["graph_id"] == graph_id)
    try:
        await _look(services, caller, one["assistant_id"])
    except WaystationError:  # a graph that was removed, or whose factory fails, is no model
        return False
    return True


async def _assistant_of(services: Services, caller: Principal, name: str) -> str:
    if name in services.project.graphs:
        return str(default_assistant_id(name))
    try:
        return str(UUID(name))
    except ValueError:
        pass
    body = AssistantSearch(name=name[:1024], limit=_MOST_MODELS)
    found = orjson.loads((await search_assistants(services, caller, body=body)).body)
    same = [assistant["assistant_id"] for assistant in found if assistant["name"] == name]
    if len(same) > 1:
        raise BadRequest(f"model: {len(same)} assistants have this name; give the assistant_id of one.")
    if not same:
        raise _unknown(name)
    return same[0]


def _for_name(services: Services, caller: Principal, name: str) -> Principal:
    """Who looks at a model: a graph by its name is there for everybody, an assistant for whom the rules let see it."""
    return _unruled(caller) if name in services.project.graphs else caller


def _unruled(caller: Principal) -> Principal:
    return replace(caller, rules=None)


def _is_default(assistant: Mapping[str, Any]) -> bool:
    return assistant["assistant_id"] == str(default_assistant_id(assistant["graph_id"]))


def _unknown(name: str) -> ModelNotFound:
    return ModelNotFound(f"model: no assistant {name[:100]!r}. GET /v1/models lists what there is.")


def _graphs_of(found: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(assistant["graph_id"] for assistant in found))


def _name_of(one: Mapping[str, Any], found: list[dict[str, Any]]) -> str:
    assistant_id, graph_id, name = one["assistant_id"], one["graph_id"], one["name"]
    if _is_default(one):
        return graph_id
    names = [other["name"] for other in found]
    graphs = [other["graph_id"] for other in found]
    return name if name and names.count(name) == 1 and name not in graphs else assistant_id


def has_messages(graph: Graph) -> bool:
    """Whether the graph keeps a conversation and gives it out."""
    return MESSAGES in cast("Any", graph).channels and MESSAGES in _outputs(graph)


def audible(graph: Graph, *, only: frozenset[str] | None = None) -> Audible:
    """Which of the graph's nodes are heard; without running any."""
    subgraphs, silent = set[Path](), set[Path]()
    _explore(graph, (), subgraphs, silent)
    return Audible(frozenset(subgraphs), frozenset(silent), only)


def _explore(graph: Graph, at: Path, subgraphs: set[Path], silent: set[Path]) -> None:
    if len(at) > _DEEPEST:
        return
    for name, node in graph.nodes.items():
        if isinstance(node.bound, ToolNode):
            silent.add((*at, name))
    children: Iterator[tuple[str, Graph]] = cast("Any", graph).get_subgraphs()  # of protocols with open parameters
    for name, inner in children:
        if MESSAGES in _outputs(inner):
            subgraphs.add((*at, name))
            _explore(inner, (*at, name), subgraphs, silent)


def _outputs(graph: Graph) -> tuple[str, ...]:
    channels = graph.output_channels
    return (channels,) if isinstance(channels, str) else tuple(channels)


def _parameters(graph: Graph) -> frozenset[str]:
    schema: Any = cast("Any", graph).context_schema
    if schema is None:
        return frozenset()
    if (fields := getattr(schema, "model_fields", None)) is not None:  # pydantic's
        return frozenset(fields)
    try:
        return frozenset(get_type_hints(schema))
    except (NameError, TypeError):  # annotations that cannot be read name nothing
        log.info("A context schema cannot be read", extra={"schema": str(schema)})
        return frozenset()
