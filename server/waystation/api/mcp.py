"""MCP at `/mcp`: the assistants as tools, over the protocol's streamable HTTP.

The server keeps nothing between requests. A session is a name for telling the requests of one client from those of
another, so that it can cancel its own; any process serves any request of it.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import re
import sys
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

from fastapi import Header, Request
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, JSONBytes, ServicesDep, json_response
from waystation.api.long_answer import ensure_room
from waystation.api.mcp_progress import Progress
from waystation.api.routing import Router
from waystation.api.rpc import (
    ANSWER,
    BODY,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    PARSE_ERROR,
    Call,
    MessageStream,
    RpcError,
    failure,
    id_of,
    parse_call,
    read_json,
    refused,
    success,
)
from waystation.api.runs import origin_of
from waystation.api.sse import WaitingJSON
from waystation.auth import Principal
from waystation.errors import BadRequest, Conflict, InvalidRequest, NotFound
from waystation.events import BEGINNING, ONLY_END, End
from waystation.runs import tools
from waystation.runs.admission import Admitted
from waystation.services import Services

router = Router(tags=["MCP"])

SESSION_HEADER: Final = "mcp-session-id"
_SESSION: Final = re.compile(r"[\x21-\x7e]{1,200}")
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: ANSWER,
    202: {"description": "A notification was taken"},
    400: {"description": "No JSON-RPC request, or an Accept header that allows no answer"},
    403: {"description": "A page of this origin may not call"},
    404: {"description": "An unknown method, for clients of 2026-07-28 and later"},
    503: {"description": "Too many calls are waiting"},
}

ThreadHeader = Annotated[
    str | None, Header(alias="Waystation-Thread-Id", description="Call tools on this thread, which is kept.")
]


@router.post("/mcp", summary="Call the assistants as MCP tools", responses=_ANSWERS, openapi_extra=BODY)
async def call_mcp(
    request: Request, services: ServicesDep, caller: CallerDep, waystation_thread_id: ThreadHeader = None
) -> Response:
    """Model Context Protocol, streamable HTTP: `initialize`, `ping`, `tools/list`, `tools/call`, notifications."""
    if not may_call(services, request.headers.get("origin")):
        return json_response({"error": "This origin may not call; see waystation.mcp.allowed_origins"}, status_code=403)
    takes_json, takes_events = _accepted(request)
    if not (takes_json or takes_events):
        return json_response(
            {"error": "Accept header must include application/json or text/event-stream"}, status_code=400
        )
    if "waystation.api.mcp_protocol" not in sys.modules:
        await asyncio.to_thread(importlib.import_module, "waystation.api.mcp_protocol")
    exchange = _Exchange(services, caller, request, waystation_thread_id, takes_json, takes_events)
    return await exchange.answer()


@router.api_route("/mcp/", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def redirect_mcp(request: Request) -> Response:
    """The address without the slash."""
    return Response(status_code=307, headers={"location": "/mcp"})


def may_call(services: Services, origin: str | None) -> bool:
    """Whether a page of this origin may call: pages of this machine, and those that the project names. A page
    elsewhere could otherwise reach a server that only its visitor can reach. Programs send no origin."""
    if origin is None:
        return True
    allowed = services.project.waystation.mcp.allowed_origins
    cors = services.project.http.cors if services.project.http else None
    named = {*allowed, *((origin for origin in cors.allow_origins if origin != "*") if cors else ())}
    if "*" in allowed or origin in named:
        return True
    if cors is not None and cors.allow_origin_regex and re.fullmatch(cors.allow_origin_regex, origin):
        return True
    return _is_of_this_machine(origin)


def _is_of_this_machine(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _accepted(request: Request) -> tuple[bool, bool]:
    """Whether the client takes JSON, and whether it takes events."""
    header = request.headers.get("accept", "*/*")
    kinds = {part.split(";")[0].strip().lower() for part in header.split(",")}
    anything = "*/*" in kinds
    return anything or not kinds.isdisjoint({"application/json", "application/*"}), anything or not kinds.isdisjoint(
        {"text/event-stream", "text/*"}
    )


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        services: Services,
        caller: Principal,
        request: Request,
        thread_id: str | None,
        takes_json: bool,
        takes_events: bool,
    ) -> None:
        from waystation.api import mcp_protocol  # loaded by now, off the loop

        self._protocol = mcp_protocol
        self._services = services
        self._caller = caller
        self._request = request
        self._thread_id = thread_id
        self._takes_json = takes_json
        self._takes_events = takes_events
        self._version = mcp_protocol.mcp.DEFAULT_NEGOTIATED_VERSION

    async def answer(self) -> Response:
        """The answer to whatever was sent."""
        body: Any = None
        try:
            self._version = self._protocol.version_of(self._request.headers)
            body = await read_json(self._request)
            return await self._answer(body)
        except (InvalidRequest, BadRequest, NotFound, Conflict) as error:
            return self._refuse(id_of(body), RpcError(INVALID_PARAMS, error.message))
        except RpcError as error:
            if error.code == PARSE_ERROR:
                return json_response({"error": "Invalid JSON"}, status_code=400)
            return self._refuse(id_of(body), error)

    async def _answer(self, body: Any) -> Response:
        if isinstance(body, dict) and "method" not in body and ("result" in body or "error" in body):
            return Response(status_code=202)  # the answer to a request that this server never makes
        call = parse_call(body)
        if call.is_notification:
            await self._notice(call)
            return Response(status_code=202)
        if self._protocol.is_modern(self._version):
            self._protocol.check_envelope(call, self._request.headers)
        self._protocol.check_params(call, self._version)
        match call.method:
            case "initialize":
                return self._respond(
                    call, self._protocol.initialized(call.params), headers={"Mcp-Session-Id": uuid4().hex}
                )
            case "server/discover":
                return self._respond(call, self._protocol.discovered(self._version))
            case "ping":
                return self._respond(call, self._protocol.empty(self._version))
            case "tools/list":
                page = await tools.list_tools(self._services, self._caller, after=call.params.get("cursor"))
                return self._respond(call, self._protocol.listed(page, self._version))
            case "tools/call":
                return await self._call_tool(call)
            case _:
                raise self._protocol.unknown_method(call)

    async def _notice(self, call: Call) -> None:
        """Of all notifications only a wish to cancel asks for anything."""
        number = call.params.get("requestId")
        run_id = self._run_id(number) if isinstance(number, str | int) else None
        if call.method == "notifications/cancelled" and run_id is not None:
            await tools.cancel_call(self._services, self._caller, run_id=run_id, thread_id=self._thread_of(call))

    async def _call_tool(self, call: Call) -> Response:
        name: str = call.params["name"]
        found = await tools.find_tool(self._services, self._caller, name=name)
        ensure_room(self._request)
        run = await tools.begin_call(
            self._services,
            self._caller,
            assistant_id=found.assistant_id,
            arguments=call.params.get("arguments") or {},
            thread_id=self._thread_of(call),
            origin=origin_of(self._request, None, run_id=self._run_id(call.id)),
        )
        token = _meta(call).get("progressToken")
        progress = Progress(token) if isinstance(token, str | int) and self._takes_events else None

        async def leave() -> None:
            await tools.abandon_call(self._services, run.key)

        if progress is not None or not self._takes_json:
            return MessageStream(self._messages(call, run, progress), on_leave=leave)
        return WaitingJSON(self._result(call, run), on_leave=leave)

    async def _messages(self, call: Call, run: Admitted, progress: Progress | None) -> AsyncGenerator[bytes]:
        after = BEGINNING if progress else ONLY_END
        async for batch in self._services.log.read(run.key, after=after, resumable=run.resumable):
            if isinstance(batch, End):
                yield await self._ended(call, run, batch)
                return
            for event in batch:
                if progress is not None and (told := progress.notification(event)):
                    yield told

    async def _result(self, call: Call, run: Admitted) -> bytes:
        async for message in self._messages(call, run, None):
            return message
        return failure(call.id, RpcError(INTERNAL_ERROR, "The server is stopping; the run goes on"))

    async def _ended(self, call: Call, run: Admitted, end: End) -> bytes:
        ended = await tools.end_call(self._services, run.key, end)
        return success(call.id, self._protocol.called(ended, self._version))

    def _respond(self, call: Call, result: dict[str, Any], *, headers: dict[str, str] | None = None) -> Response:
        if self._takes_json:
            return JSONBytes(success(call.id, result), headers=headers)

        async def only() -> AsyncGenerator[bytes]:
            yield success(call.id, result)

        return MessageStream(only())

    def _refuse(self, id: Any, error: RpcError) -> Response:
        modern = self._protocol.is_modern(self._version)
        return refused(id, error, status_code=self._protocol.status_of(error, modern=modern))

    def _thread_of(self, call: Call) -> str | None:
        named = _meta(call).get(self._protocol.THREAD_META)
        return named if isinstance(named, str) else self._thread_id

    def _run_id(self, number: Any) -> str | None:
        """The run that a request of this session makes; without a session its number says nothing."""
        session_id = self._request.headers.get(SESSION_HEADER)
        if session_id is None or not _SESSION.fullmatch(session_id) or isinstance(number, bool | float):
            return None
        return tools.run_id_of(self._caller, session_id=session_id, request_id=number)


def _meta(call: Call) -> dict[str, Any]:
    found = call.params.get("_meta")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
