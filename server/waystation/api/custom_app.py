"""The project's own web application (`http.app`) in front of and beside the API.

    API loop                        graph loop                                API loop
    request ──▶ takes()? ──▶ its middleware ─┬─▶ its routes
                   │ no                      └─▶ an operation of ours ──▶ Application.operate
                   └──▶ an operation of ours

It runs on the graph loop, with the graphs: user code never runs on the API's. Without middleware of its own only its
own routes cross over; with middleware everything does but the probes, which must not depend on users' code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from waystation.api.failures import answer_to
from waystation.api.project_routes import ProjectRoutes
from waystation.auth.gate import CALLER
from waystation.errors import Unavailable, WaystationError
from waystation.services import GraphSide, Services
from waystation.services.http_app import INSIDE, HttpApp

PROBES = frozenset({"/ok", "/health", "/ready"})
"""They tell whether the process lives; a node that blocks the graph loop must not make it look dead."""

TAKEN_S = 10.0
"""How long the graph loop may take to begin with a request. Only code that blocks it makes that long."""

_CORS = b"access-control-"
_PASSAGE = "waystation.passage"


class Operations(Protocol):
    """Our own operations, as the application's middleware reaches them."""

    @property
    def prefix(self) -> str: ...

    async def operate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by an operation of ours. Raises AnswerDropped when the connection is to be dropped."""
        ...


@dataclass(slots=True)
class _Passage:
    """What is known of a request on both sides of the middleware, which may copy the scope."""

    route: object = "custom"
    is_dropped: bool = False


class CustomApp:
    """The application, as the frame calls it on the API's loop."""

    def __init__(self, http_app: HttpApp, services: Services, ours: Operations, routes: ProjectRoutes) -> None:
        http = services.project.http
        self._http_app = http_app
        self._services = services
        self._ours = ours
        self._routes = routes
        self._here = asyncio.get_running_loop()
        self._has_middleware = bool(http_app.app.user_middleware)
        self._asks_for_credentials = http is not None and http.enable_custom_route_auth
        self._asks_first = http is not None and http.middleware_order == "auth_first"
        self.does_cors = (http is None or http.cors is None) and _brings_cors(http_app)
        """It has a CORS middleware and the project gives no rules besides: ours stays out of the way."""

    @property
    def document(self) -> Mapping[str, Any] | None:
        """Its OpenAPI document, where it has one."""
        return self._http_app.document

    def takes(self, scope: Scope) -> bool:
        """Whether a request goes its way: to its routes, or through its middleware to ours."""
        path = self._below_prefix(scope["path"])
        if path is None or path in PROBES:
            return False
        return self._has_middleware or self._routes.own(self._scope(scope) if self._ours.prefix else scope, path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the application. Raises Unavailable when the graph loop does not take it up."""
        inside = self._scope(scope)
        if self._asks_first and self._has_middleware:
            receive = await self._ask(inside, receive)
        over = _bridge(self._here)
        passage = scope[_PASSAGE] = _Passage()
        there = {**inside, INSIDE: self._inside, _PASSAGE: passage}
        send = _out_of(passage, send, keeps_cors=self.does_cors)
        await self._taken_up(lambda: self._http_app.stack(there, over(receive), over(send)))

    async def _ask(self, scope: Scope, receive: Receive) -> Receive:
        """Before its middleware: who is it, where somebody has to show who they are."""
        gate = self._services.gate
        path = self._below_prefix(scope["path"])
        is_own = path is not None and self._routes.own(scope, path)
        if gate is None or path is None or (is_own and not self._asks_for_credentials) or self._is_open(scope, path):
            return receive
        return await gate.authenticate(scope, receive)

    def _is_open(self, scope: Scope, path: str) -> bool:
        return scope["type"] == "http" and self._routes.is_open(scope["method"], path)

    async def _taken_up(self, answer: Callable[[], Awaitable[None]]) -> None:
        begun = self._here.create_future()

        async def there(_side: GraphSide) -> None:
            self._here.call_soon_threadsafe(_resolve, begun)
            await answer()

        crossing = asyncio.create_task(self._services.graphs.call(there))
        try:
            await asyncio.wait((crossing, begun), timeout=TAKEN_S, return_when=asyncio.FIRST_COMPLETED)
            if not crossing.done() and not begun.done():
                raise Unavailable("The graphs are busy; try again later.", headers={"Retry-After": "2"})
            await crossing
        finally:
            if not crossing.done():
                crossing.cancel()

    async def _inside(self, its_routes: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """On the graph loop, behind all middleware."""
        path = self._below_prefix(scope["path"])
        if path is None or not self._routes.own(scope, path):
            over = _bridge(self._services.graphs.loop)
            operate = _bridge(self._here)(self._ours.operate)
            await operate(scope, over(receive), over(send))
            return
        if self._asks_for_credentials and CALLER not in scope and self._services.gate is not None:
            try:
                receive = await self._authenticated(scope, receive)
            except WaystationError as error:
                await _refuse(error, scope, receive, send)
                return
        await its_routes(scope, receive, send)

    async def _authenticated(self, scope: Scope, receive: Receive) -> Receive:
        gate = self._services.gate
        assert gate is not None
        given = _bridge(self._services.graphs.loop)(receive)
        got = await _bridge(self._here)(gate.authenticate)(scope, given)
        return receive if got is given else _bridge(self._here)(got)

    def _scope(self, scope: Scope) -> Scope:
        """The scope as its routes read it: below our prefix, with what its lifespan made."""
        state = {**scope.get("state", {}), **self._http_app.state}
        root = scope.get("root_path", "") + self._ours.prefix
        return {**scope, "app": self._http_app.app, "root_path": root, "state": state}

    def _below_prefix(self, path: str) -> str | None:
        prefix = self._ours.prefix
        if not prefix or path in PROBES:
            return path
        return path[len(prefix) :] if path.startswith(prefix + "/") else None


def tell_route(scope: Scope, *, is_dropped: bool) -> None:
    """Tell those in front of the middleware which operation answered, and whether to the end."""
    passage: _Passage = scope[_PASSAGE]
    passage.route, passage.is_dropped = scope.get("route"), is_dropped


def route_told(scope: Scope) -> object:
    """What answered a request that went the application's way; None for others."""
    passage: _Passage | None = scope.get(_PASSAGE)
    return passage and passage.route


class AnswerDropped(Exception):
    """An answer ended before its end: its connection has to be dropped, not closed as if it were complete."""


def _bridge(
    loop: asyncio.AbstractEventLoop,
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Makes functions of `loop` callable from another: they run there, and are cancelled with their caller."""

    def bridged(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def there(*args: Any) -> Any:
            return await fn(*args)

        async def call(*args: Any) -> Any:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(*args), loop))

        return call

    return bridged


def _brings_cors(http_app: HttpApp) -> bool:
    kinds = [one.cls for one in http_app.app.user_middleware]
    return any(isinstance(kind, type) and issubclass(kind, CORSMiddleware) for kind in kinds)


def _out_of(passage: _Passage, send: Send, *, keeps_cors: bool) -> Send:
    """The way from the application's stack to the client.

    Middleware that wraps answers ends what it wrapped, whatever became of it: that end is not passed on when ours was
    dropped. Where our rules of CORS hold, the application's would come a second time, which browsers refuse.
    """

    async def out(message: Message) -> None:
        if message["type"] == "http.response.start" and not keeps_cors:
            message["headers"] = [(k, v) for k, v in message["headers"] if not k.lower().startswith(_CORS)]
        elif passage.is_dropped and message["type"] == "http.response.body" and not message.get("more_body", False):
            return
        await send(message)

    return out


async def _refuse(error: WaystationError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
        return
    await answer_to(error)(scope, receive, send)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
