"""Assistants as tools of other agents: list them, call one, tell what the call came to.

A call is a run on a thread of its own that is hidden when the call is over, or on a thread that the client names. A run
that stops to ask something keeps its thread for a day: the client answers by calling the tool again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from uuid import NAMESPACE_URL, UUID, uuid5

import orjson
from psycopg.errors import UniqueViolation

from waystation.auth import Principal
from waystation.catalog import default_assistant_id
from waystation.errors import BadRequest, InvalidRequest, NotFound
from waystation.events import End
from waystation.runs import assistant_graphs
from waystation.runs.admission import Admitted, create_on_thread, create_stateless, stateless_thread_id
from waystation.runs.cancel import cancel_because_client_left, cancel_run
from waystation.runs.output import answer
from waystation.runs.permission import ask, member_of
from waystation.runs.requests import CommandBody, StatelessRunCreate, StreamMode, ThreadRunCreate
from waystation.runs.run_kwargs import Origin
from waystation.runs.tool_shapes import (
    INTERRUPT,
    WRAPPED_INPUT,
    WRAPPED_OUTPUT,
    Schema,
    id_range,
    input_schema,
    output_schema,
    takes_object,
    tool_name,
)
from waystation.services import Services
from waystation_db import tools
from waystation_db.rows import RunKey
from waystation_db.threads import Ttl
from waystation_db.tools import ToolRow

RESUME: Final = "__resume__"
"""The argument that answers what an earlier call asked: `{"thread_id": …, "value": …}`."""

PAGE: Final = 50
_AT_ONCE: Final = 8
_KEPT: Final = Ttl("delete", 24 * 60)
_MADE_HERE: Final = {"created_by": "mcp"}
_MODES: Final[list[StreamMode]] = ["updates", "custom"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tool:
    """An assistant as a tool."""

    assistant_id: str
    name: str
    title: str
    description: str
    input_schema: Schema
    output_schema: Schema | None


@dataclass(frozen=True, slots=True)
class ToolPage:
    """Some tools, and after which id the next ones come; None: these are the last."""

    tools: list[Tool]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Called:
    """What a call came to: the output as an object, or an error."""

    key: RunKey
    output: dict[str, Any]
    interrupts: list[dict[str, Any]]
    error: str | None = None


async def list_tools(services: Services, caller: Principal, *, after: str | None, limit: int = PAGE) -> ToolPage:
    """A page of the caller's assistants as tools.

    Raises:
        InvalidRequest: `after` is no id.
    """
    after, seen = _uuid(after), await _seen(services, caller)
    async with services.db.connection() as conn:
        rows = await tools.page(conn, caller.tenant_id, after=after, limit=limit + 1, seen=seen)
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(row: ToolRow) -> Tool:
        async with room:
            return await _described(services, caller, row)

    shown = rows[:limit]
    return ToolPage(
        list(await asyncio.gather(*(one(row) for row in shown))),
        shown[-1].assistant_id if len(rows) > limit else None,
    )


async def find_tool(services: Services, caller: Principal, *, name: str) -> ToolRow:
    """The assistant that a tool's name means; the name of a graph and an assistant's id do, too.

    Raises:
        NotFound: no such tool for this caller.
    """
    span = _span(services, name)
    if span is None:
        raise NotFound(f"Unknown tool: {name[:100]}")
    seen = await _seen(services, caller)
    async with services.db.connection() as conn:
        rows = await tools.between(conn, caller.tenant_id, first=span[0], last=span[1], seen=seen)
    fitting = rows if len(rows) == 1 else [row for row in rows if tool_name(row) == name]
    if not fitting:
        raise NotFound(f"Unknown tool: {name[:100]}")
    return fitting[0]


async def begin_call(
    services: Services,
    caller: Principal,
    *,
    assistant_id: str,
    arguments: dict[str, Any],
    thread_id: str | None,
    origin: Origin,
) -> Admitted:
    """Create the run of a call, with the id in `origin` if it is free.

    Raises:
        As `create_on_thread`.
    """
    command = None
    if RESUME in arguments:
        thread_id, command = _resume(arguments[RESUME])
    input = None if command else await _input(services, caller, assistant_id, arguments)
    shared: dict[str, Any] = {"assistant_id": assistant_id, "input": input, "stream_mode": _MODES}

    async def create(origin: Origin) -> Admitted:
        if thread_id is None:
            stateless = StatelessRunCreate(**shared, on_completion="keep", metadata=_MADE_HERE)
            return await create_stateless(services, caller, request=stateless, origin=origin)
        on_thread = ThreadRunCreate(**shared, command=command, if_not_exists="reject" if command else "create")
        thread = _required_uuid(thread_id)
        return await create_on_thread(services, caller, thread_id=thread, request=on_thread, origin=origin)

    try:
        return await create(replace(origin, ttl=_KEPT))
    except (NotFound, UniqueViolation):
        if origin.run_id is None:
            raise
    # The client numbered an earlier request alike: this one works, and cannot be cancelled by its number.
    return await create(replace(origin, ttl=_KEPT, run_id=None))


async def end_call(services: Services, key: RunKey, end: End) -> Called:
    """What a call whose run has ended came to. The thread that was made for it is hidden, unless it waits for an
    answer."""
    output = orjson.loads(await answer(services, key, end))
    async with services.db.connection() as conn:
        await tools.hide_called(conn, key)
    if end.status == "interrupted":
        return Called(key, {}, [], "Cancelled: the run was stopped before its end")
    if not isinstance(output, dict):
        return Called(key, {WRAPPED_OUTPUT: output}, [])
    members = cast("dict[str, Any]", output)
    if "__error__" in members:
        return Called(key, {}, [], error_text(services, members["__error__"]))
    interrupts = cast("list[dict[str, Any]]", members.get(INTERRUPT) or [])
    return Called(key, members, interrupts)


async def abandon_call(services: Services, key: RunKey) -> None:
    """The client has left: nobody will get the result."""
    await cancel_because_client_left(services, key)


async def cancel_call(services: Services, caller: Principal, *, run_id: str, thread_id: str | None) -> None:
    """Stop a call's run, if it still runs."""
    thread_id = stateless_thread_id(run_id) if thread_id is None else _required_uuid(thread_id)
    try:
        await cancel_run(services, caller, thread_id=thread_id, run_id=run_id, action="interrupt")
    except NotFound:  # it was never there, or is over: the protocol lets such a wish pass
        log.debug("nothing to cancel", extra={"run_id": run_id})


def run_id_of(caller: Principal, *, session_id: str, request_id: str | int) -> str:
    """The run of a client's request in its session, so that whoever gets the wish to cancel it finds it: any process,
    and for the same caller only."""
    name = orjson.dumps([caller.tenant_id, caller.identity, session_id, request_id])
    return str(uuid5(NAMESPACE_URL, "mcp:" + name.decode()))


def error_text(services: Services, error: Mapping[str, Any]) -> str:
    """What a client is told of a run that failed: the class, and the text where the operator lets it out."""
    name, message = str(error.get("error") or "Error"), str(error.get("message") or "")
    return f"{name}: {message}" if message and services.settings.expose_errors else name


async def _described(services: Services, caller: Principal, row: ToolRow) -> Tool:
    takes, gives = await graph_schemas(services, caller, row.assistant_id)
    return Tool(
        assistant_id=row.assistant_id,
        name=tool_name(row),
        title=row.name,
        description=row.description or f"Runs the assistant {row.name!r} on the graph {row.graph_id!r}.",
        input_schema=input_schema(takes),
        output_schema=output_schema(gives),
    )


async def graph_schemas(
    services: Services, caller: Principal, assistant_id: str
) -> tuple[Schema | None, Schema | None]:
    """What the graph of an assistant that the caller may run declares to take and to give; None where it has no schema
    or cannot be opened."""
    asked = replace(caller, rules=None)
    try:
        found = await assistant_graphs.describe_graph(services, asked, assistant_id=assistant_id)
    except (BadRequest, NotFound):
        return None, None
    return found["input_schema"], found["output_schema"]


async def _input(services: Services, caller: Principal, assistant_id: str, arguments: dict[str, Any]) -> Any:
    if list(arguments) != [WRAPPED_INPUT]:
        return arguments
    takes, _ = await graph_schemas(services, caller, assistant_id)
    return arguments if takes_object(takes) else arguments[WRAPPED_INPUT]


def _resume(given: Any) -> tuple[str, CommandBody]:
    members = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    if "value" not in members or not isinstance(members.get("thread_id"), str):
        raise InvalidRequest(f'arguments.{RESUME}: should be an object of "thread_id" and "value"')
    return _required_uuid(members["thread_id"]), CommandBody(resume=members["value"])


async def _seen(services: Services, caller: Principal) -> tools.Seen:
    """The assistants that the caller sees, and those that graphs have from the start: whoever may run may run them."""
    defaults = [str(default_assistant_id(graph_id)) for graph_id in services.project.graphs]
    if caller.rules is None:
        return tools.Seen("{}", [])
    value: dict[str, Any] = {"graph_id": None, "metadata": {}, "limit": PAGE, "offset": 0}
    visible = orjson.loads(await ask(caller, "assistants", "search", value) or "{}")
    return tools.Seen(orjson.dumps({**member_of(value, "metadata"), **visible}).decode(), defaults)


def _span(services: Services, name: str) -> tuple[str, str] | None:
    if name in services.project.graphs:
        assistant_id = str(default_assistant_id(name))
        return assistant_id, assistant_id
    try:
        assistant_id = str(UUID(name))
    except ValueError:
        return id_range(name)
    return assistant_id, assistant_id


def _required_uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest("Invalid thread ID: must be a UUID") from None


def _uuid(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest("cursor: is none that this server gave") from None
