"""The ASGI application: one pass around every request, instead of a stack of middleware.

    head of the request ─▶ CORS preflight? ─▶ find the operation ─▶ run its plan ─▶ send the answer
                                                      │                 │              └ vary, CORS, request id
                                                      └──── errors ─────┴─▶ JSON in the protocol's shape

A project's own application (`custom_app.py`) stands beside the operations, or around them with its middleware.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.datastructures import Headers, State
from starlette.requests import ClientDisconnect
from starlette.routing import Router as Lifespan
from starlette.types import Message, Receive, Scope, Send

from waystation.api.access_log import Access
from waystation.api.cors import Cors, CorsRules
from waystation.api.custom_app import AnswerDropped, CustomApp, route_told, tell_route
from waystation.api.dispatch import Missing, RouteTable
from waystation.api.failures import answer_to, not_here
from waystation.api.headers import HeaderRules
from waystation.api.limits import REPLACEMENT
from waystation.api.openapi import Document, describe_api, with_credentials, with_limits, with_theirs
from waystation.api.request_limits import RequestLimits
from waystation.api.routing import Operation
from waystation.api.thread_socket import serve_thread_socket, thread_of
from waystation.auth import Gate
from waystation.auth.gate import CALLER
from waystation.guarding.http_limit_scope import LIMITED
from waystation.telemetry import counting, trace_context
from waystation.telemetry.tracing import RequestSpan, Tracing

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.api.request_audit import RequestAudit

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""Counted for requests whose client went away before there was an answer."""

PUBLIC = "System"
"""The tag of operations that ask for no credentials."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SOCKET_PATH = "/threads/{thread_id}/stream/events"
"""What is served over WebSockets, too, unless the project switched the operation off."""

_PROBES = frozenset({"/ok", "/health", "/ready", "/metrics"})
"""What machines ask every few seconds: no request that anybody wants to see in traces, or in the access log."""

_VARY = [(b"vary", b"Origin")]
_CLOSE = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a request before anybody looks for its operation."""

    origin: bytes | None
    request_id: bytes | None
    preflight: bool
    span: RequestSpan | None
    access: Access | None


class Application:
    """What uvicorn runs. `state` holds what the start put there (`services`, `streams`)."""

    def __init__(
        self,
        operations: Iterable[Operation],
        *,
        lifespan: Callable[[Application], AbstractAsyncContextManager[None]],
    ) -> None:
        self.state = State()
        self.serve(operations)
        self.cors = Cors(CorsRules())
        self.prefix = ""
        self.gate: Gate | None = None
        self.limits: RequestLimits | None = None
        self.audit: RequestAudit | None = None
        self.tracing: Tracing | None = None
        self.logs_access = False
        self._draining = False
        self.credentials: tuple[Mapping[str, Any], Sequence[Any]] = ({}, ())
        self.custom: CustomApp | None = None
        self._lifespan = Lifespan(lifespan=self._wrap(lifespan))

    def serve(self, operations: Iterable[Operation]) -> None:
        """Serve these and no others. Before the first request."""
        self.operations = list(operations)
        self.serves_sockets = any(operation.path == SOCKET_PATH for operation in self.operations)
        self.table = RouteTable(self.operations)

    def start_draining(self) -> None:
        """Tell readiness probes that the process is about to stop, while it still answers; and with each answer, that
        its connection ends with it: the client's next request then goes to a process that stays. Safe to repeat."""
        self._draining = True
        if hasattr(self.state, "streams"):
            self.state.streams.draining = True

    def stop_streams(self) -> None:
        """Drop the long answers, so that their clients come back to a process that stays. Safe to repeat."""
        if hasattr(self.state, "streams"):
            self.state.streams.stop()

    @cached_property
    def document(self) -> Document:
        """The OpenAPI document of everything served here."""
        document = describe_api(self.operations)
        if self.gate is not None:
            document = with_credentials(document, *self.credentials)
        if self.limits is not None:
            document = with_limits(document)
        if self.prefix:
            document["servers"] = [{"url": self.prefix}]
        theirs = self.custom.document if self.custom is not None else None
        return document if theirs is None else with_theirs(document, theirs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._lifespan.lifespan(scope, receive, send)
            case _:
                await self._websocket(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        is_here = path.startswith(f"{self.prefix}/")
        thread_id = thread_of(path[len(self.prefix) :]) if is_here and self.serves_sockets else None
        try:
            if thread_id is not None:
                await serve_thread_socket(scope, receive, send, thread_id=thread_id)
            elif self.custom is not None and self.custom.takes(scope):
                await self.custom(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1000})
        except Exception as error:  # the boundary of a connection: others go on
            log.error("A socket broke off", exc_info=error, extra={"path": path})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin, request_id, preflight, parent = _look_at(scope)
        span = None
        if self.tracing is not None and not preflight and scope["path"] not in _PROBES:
            span = self.tracing.request(scope["method"], scope["path"], scope["headers"])
            parent = span.traceparent
        access = Access() if self.logs_access and scope["path"] not in _PROBES else None
        if request_id is None and parent is None and access is None:
            await self._answer(scope, receive, send, About(origin, request_id, preflight, span, access))
            return
        shown = None if request_id is None else request_id[: trace_context.LONGEST_ID].decode("latin-1")
        if shown is None and access is not None:
            shown = scope.setdefault("state", {})["request_id"] = str(uuid.uuid4())
        with trace_context.bound(request_id=shown, parent=parent):
            await self._answer(scope, receive, send, About(origin, request_id, preflight, span, access))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, about: About) -> None:
        origin, preflight, access = about.origin, about.preflight, about.access
        if self.custom is not None and self.custom.does_cors:
            origin, preflight = None, False
        extra = _VARY if origin is None else [*_VARY, *self.cors.headers_for(origin)]
        if about.request_id is not None:
            extra = [*extra, (b"x-request-id", about.request_id)]
        status = 0
        is_custom = self.custom is not None and self.custom.takes(scope)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *extra, *scope.get(LIMITED, ())]
                if self._draining:
                    headers.append(_CLOSE)
                message["headers"] = headers if is_custom else self._located(headers)
                if self.audit is not None and not is_custom:
                    await self.audit.answering(scope, status)
            elif access is not None:
                access.sent(message)
            await send(message)

        if preflight:
            response = self.cors.preflight(Headers(scope=scope))
            if self._draining:
                response.raw_headers.append(_CLOSE)
            await response(scope, receive, send)
            return
        try:
            if self.custom is not None and is_custom:
                await self.custom(scope, receive, answer)
            else:
                await self._serve(scope, receive, answer)
        except (ClientDisconnect, AnswerDropped):
            pass
        except Exception as error:  # the boundary of a request: others go on
            if status:
                log.error("An answer broke off", exc_info=error, extra=_about(scope))
            else:
                await self._fail(error, scope, receive, answer)
        finally:
            if hasattr(self.state, "streams"):
                self.state.streams.leave(scope)
            if self.audit is not None and not is_custom:
                self.audit.over(scope)
            _count(scope, status or CLIENT_LEFT)
            if about.span is not None:
                about.span.end(route=_route(scope), status=status or CLIENT_LEFT)
            if access is not None:
                access.over(scope, route=_route(scope), status=status or CLIENT_LEFT)

    async def operate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by an operation of ours behind the project's middleware, which sees errors as answers.

        Raises:
            AnswerDropped: the answer has no end; whatever stands around it must not make one.
        """
        scope["app"] = self
        is_begun = is_complete = False

        async def answer(message: Message) -> None:
            nonlocal is_begun, is_complete
            if message["type"] == "http.response.start":
                is_begun = True
                message["headers"] = self._located([*message["headers"], *scope.get(LIMITED, ())])
                if self.audit is not None:
                    await self.audit.answering(scope, message["status"])
            else:
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._serve(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:  # the boundary of a request
            if is_begun:
                log.error("An answer broke off", exc_info=error, extra=_about(scope))
            else:
                await self._fail(error, scope, receive, answer)
        finally:
            self.state.streams.leave(scope)
            if self.audit is not None:
                self.audit.over(scope)
            tell_route(scope, is_dropped=not is_complete)
        if not is_complete:
            raise AnswerDropped

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if "\x00" in path:
            path = path.replace("\x00", REPLACEMENT)
        if self.prefix and path not in ("/ok", self.prefix + "/ok"):
            if not path.startswith(self.prefix + "/"):
                await not_here(frozenset())(scope, receive, send)
                return
            path = path[len(self.prefix) :]
        elif self.prefix:
            path = "/ok"
        found = self.table.find(scope["method"], path)
        if isinstance(found, Missing):
            if self.limits is not None:
                await self.limits.arrive(scope, None)
            if self.gate is not None and CALLER not in scope:
                await self.gate.authenticate(scope, receive)  # who may not come in is not told what there is
            await not_here(found.allowed)(scope, receive, send)
            return
        scope["route"] = found.operation
        scope["path_params"] = found.params
        if b"%00" in scope["query_string"]:
            scope["query_string"] = scope["query_string"].replace(b"%00", b"%EF%BF%BD")
        limits = None if PUBLIC in found.operation.tags else self.limits
        if limits is not None:
            await limits.arrive(scope, found.operation)
        if self.gate is not None and PUBLIC not in found.operation.tags and CALLER not in scope:
            receive = await self.gate.authenticate(scope, receive)
        if limits is None:
            await _run(found.operation, scope, receive, send)
            return
        try:
            await limits.admit(scope, found.operation)
            await _run(found.operation, scope, receive, send)
        finally:
            await limits.leave(scope)

    async def _fail(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope.get("route")
        response = route.failed(error) if isinstance(route, Operation) else answer_to(error)
        if response.status_code == 500:
            log.error("A request failed", exc_info=error, extra=_about(scope))
        await response(scope, receive, send)

    def _located(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Below a prefix, the addresses that clients come back to have it too."""
        if not self.prefix:
            return headers
        prefix = self.prefix.encode()
        return [(k, prefix + v if k in (b"location", b"content-location") else v) for k, v in headers]

    def _wrap(
        self, lifespan: Callable[[Application], AbstractAsyncContextManager[None]]
    ) -> Callable[[Any], AbstractAsyncContextManager[None]]:
        @asynccontextmanager
        async def run(_router: Any) -> AsyncGenerator[None]:
            async with lifespan(self):
                yield

        return run


async def _run(operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
    response = await operation.run(Request(scope, receive, send))
    await response(scope, receive, send)


def request_id_of(request: Request) -> str:
    """The request's id: as the client sent it, else a new one that stays with the request."""
    state = request.scope.setdefault("state", {})
    if "request_id" not in state:
        given = request.headers.get("x-request-id", "")[: trace_context.LONGEST_ID]
        state["request_id"] = given or str(uuid.uuid4())
    return state["request_id"]


def _look_at(scope: Scope) -> tuple[bytes | None, bytes | None, bool, str | None]:
    """Origin, request id, whether a browser is asking for permission, and the trace that the request belongs to."""
    origin = request_id = parent = None
    asks = False
    for name, value in scope["headers"]:
        if name == b"origin":
            origin = value
        elif name == b"x-request-id":
            request_id = value
        elif name == trace_context.HEADER:
            parent = trace_context.parsed(value)
        elif name == b"access-control-request-method":
            asks = True
    return origin, request_id, asks and origin is not None and scope["method"] == "OPTIONS", parent


def _about(scope: Scope) -> dict[str, Any]:
    about = {"method": scope["method"], "path": scope["path"], "request_id": request_id_of(Request(scope))}
    rules: HeaderRules | None = getattr(scope["app"].state, "logging_headers", None)
    return about if rules is None else {**about, "headers": rules.choose(scope["headers"])}


def _count(scope: Scope, status: int) -> None:
    route = scope.get("route") or route_told(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    counting.http_requests_of(method, _label(route), status).inc()


def _route(scope: Scope) -> str | None:
    found = _label(scope.get("route") or route_told(scope))
    return None if found == "unknown" else found


def _label(route: object) -> str:
    return route.path if isinstance(route, Operation) else route if isinstance(route, str) else "unknown"
