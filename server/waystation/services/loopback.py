"""The way from a graph to the API of its own process: what `get_client()` without an address talks through.

    node ── get_client() ──▶ LoopbackTransport ──▶ the application, on the API's loop ──▶ Postgres, a worker …
    (any thread, any loop)          ▲ chunk by chunk as they come, no socket

The SDK looks for the application in modules named after the platform's server. Those names lead here, for as long as
the process is open. A request acts as the run that makes it: in its tenant, as its user, and asks no rules again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from concurrent.futures import Future
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, cast

import httpx
from starlette.types import ASGIApp, Message, Scope

from waystation.auth import ACTING_AS, Principal
from waystation.auth.gate import CALLER
from waystation.guarding.http_limit_scope import INSIDE
from waystation_db.rows import RunKey

_OWN_THREAD: ContextVar[str | None] = ContextVar("own_thread", default=None)
_ITSELF: Final = (
    "This thread is that of the run which asks, and a thread has one run at a time: the run would wait for itself. Give"
    " the inner run a thread of its own."
)

MAX_WAITING_BYTES: Final = 1024 * 1024
"""What an answer may be ahead of who reads it."""

COMES_UP_S: Final = 60.0
"""How long a run waits for the API of its process. A worker claims runs before the rest of its process is up."""

_PACKAGE: Final = "langgraph_api"
_AWAY: Final = (
    "get_client() without a url reaches the API of this process once it is up, and it is not. Call it in a node and"
    " not while the module is imported, or give the server's address."
)


@dataclass(slots=True)
class Loopback:
    """The application to talk to, and the loop that it lives on. Nobody answers until it is connected."""

    app: ASGIApp | None = None
    prefix: str = ""
    loop: asyncio.AbstractEventLoop | None = field(default=None)
    _decided: Future[None] = field(default_factory=Future[None])

    def connect(self, app: ASGIApp, *, prefix: str) -> None:
        """From now on requests go to this application, on the running loop."""
        self.app, self.prefix, self.loop = app, prefix, asyncio.get_running_loop()
        self._decide()

    def close(self) -> None:
        """From now on nobody answers."""
        self.app = self.loop = None
        self._decide()

    async def decided(self) -> None:
        """Wait until it is connected or closed, `COMES_UP_S` at most; on any loop."""
        if self._decided.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMES_UP_S):
                await asyncio.shield(asyncio.wrap_future(self._decided))  # others wait for it too

    def _decide(self) -> None:
        if not self._decided.done():
            self._decided.set_result(None)

    def __call__(self, *_: Any) -> Any:
        """What a plain ASGI transport would call; it could not cross from one loop to the other."""
        raise RuntimeError("the API of this process is reached through LoopbackTransport")


def act_for(key: RunKey, configurable: Mapping[str, Any]) -> None:
    """From here on, in this task and what it starts, the code is that of a run, and acts for whom its config names."""
    _OWN_THREAD.set(key.thread_id)
    ACTING_AS.set(
        Principal(
            tenant_id=key.tenant_id,
            identity=configurable.get("langgraph_auth_user_id") or "",
            permissions=tuple(configurable.get("langgraph_auth_permissions") or ()),
            user=configurable.get("langgraph_auth_user"),
        )
    )


@contextlib.contextmanager
def installed_loopback() -> Generator[Loopback]:
    """Let `get_client()` find the API of this process, until the block is left."""
    loopback = Loopback()
    modules = {_PACKAGE: ModuleType(_PACKAGE, "Names that the SDK looks for; see waystation.services.loopback.")}
    modules[_PACKAGE].__path__ = []
    for name, members in {"server": {"app": loopback}, "asgi_transport": {"ASGITransport": LoopbackTransport}}.items():
        module = modules[f"{_PACKAGE}.{name}"] = ModuleType(f"{_PACKAGE}.{name}")
        module.__dict__.update(members)
        setattr(modules[_PACKAGE], name, module)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    _forget_transport()
    try:
        yield loopback
    finally:
        loopback.close()
        for name, module in before.items():
            if sys.modules.get(name) is modules[name]:
                if module is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = module
        _forget_transport()


def _forget_transport() -> None:
    """The SDK remembers which transport it found first."""
    from langgraph_sdk._shared import utilities

    find = cast("Any", utilities).get_asgi_transport
    if hasattr(find, "cache_clear"):
        find.cache_clear()


class LoopbackTransport(httpx.AsyncBaseTransport):
    """httpx's way to an application in this process. Usable from any loop, also from several."""

    def __init__(self, app: Loopback, root_path: str = "", **_: Any) -> None:
        self._loopback = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if _OWN_THREAD.get() is not None:
            await self._loopback.decided()
        app, loop = self._loopback.app, self._loopback.loop
        if app is None or loop is None or loop.is_closed():
            raise httpx.ConnectError(_AWAY, request=request)
        if _waits_for_itself(request):
            return httpx.Response(409, json={"detail": _ITSELF, "code": "conflict"}, request=request)
        body = await request.aread()
        exchange = _Exchange(asyncio.get_running_loop(), loop, body)
        exchange.begin(app, self._scope(request))
        try:
            status, headers = await exchange.head
        except BaseException:
            exchange.leave()
            raise
        return httpx.Response(status, headers=headers, stream=_Body(exchange), request=request)

    def _scope(self, request: httpx.Request) -> Scope:
        prefix = self._loopback.prefix
        path = request.url.path
        if prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": ("api", 80),
            "client": ("127.0.0.1", 0),
            "state": {},
            CALLER: ACTING_AS.get(),
            INSIDE: True,
        }


def _waits_for_itself(request: httpx.Request) -> bool:
    thread_id = _OWN_THREAD.get()
    ends = tuple(f"/threads/{thread_id}/runs/{how}" for how in ("wait", "stream"))
    return thread_id is not None and request.method == "POST" and request.url.path.endswith(ends)


class _Exchange:
    """One request and its answer, between the loop that asks and the loop that answers."""

    def __init__(self, asking: asyncio.AbstractEventLoop, answering: asyncio.AbstractEventLoop, body: bytes) -> None:
        self.head: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asking.create_future()
        self.chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._asking = asking
        self._answering = answering
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._room = asyncio.Event()
        self._waiting_bytes = 0
        self._complete = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, app: ASGIApp, scope: Scope) -> None:
        """Called on the asking loop. What the node's context holds (LangGraph's own config, for one) stays there: a run
        that is made by this request is nobody's child."""
        self._answering.call_soon_threadsafe(self._answer_soon, app, scope, context=Context())

    def leave(self) -> None:
        """The asking side is gone; from its loop."""
        with contextlib.suppress(RuntimeError):  # the answering loop is closed: nobody is there to be told
            self._answering.call_soon_threadsafe(self._leave)

    def taken(self, size: int) -> None:
        """The asking side has read so much."""
        with contextlib.suppress(RuntimeError):
            self._answering.call_soon_threadsafe(self._make_room, size)

    # -- on the answering loop -------------------------------------------------------------------------------------

    def _answer_soon(self, app: ASGIApp, scope: Scope) -> None:
        self._task = asyncio.create_task(self._answer(app, scope))

    def _leave(self) -> None:
        self._left.set()
        self._room.set()

    async def _answer(self, app: ASGIApp, scope: Scope) -> None:
        broken: Exception | None = None
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:  # the boundary of the request: told to who asked
            broken = error
        self._tell(self._end, broken)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._tell(self._start, message["status"], list(message["headers"]))
            return
        self._complete = not message.get("more_body", False)
        if chunk := bytes(message.get("body", b"")):
            self._waiting_bytes += len(chunk)
            self._tell(self.chunks.put_nowait, chunk)
        while self._waiting_bytes > MAX_WAITING_BYTES and not self._left.is_set():
            self._room.clear()
            await self._room.wait()

    def _make_room(self, size: int) -> None:
        self._waiting_bytes -= size
        self._room.set()

    def _tell(self, what: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the asking loop is closed: nobody waits any more
            self._asking.call_soon_threadsafe(what, *arguments)

    # -- on the asking loop ----------------------------------------------------------------------------------------

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not self.head.done():
            self.head.set_result((status, headers))

    def _end(self, broken: Exception | None) -> None:
        error = broken if broken is not None or self._complete else httpx.RemoteProtocolError("the answer broke off")
        if not self.head.done():
            self.head.set_exception(httpx.RemoteProtocolError(str(error or "there was no answer")))
        self.chunks.put_nowait(error)


class _Body(httpx.AsyncByteStream):
    """The body of an answer, chunk by chunk."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while (chunk := await self._exchange.chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            self._exchange.taken(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        self._exchange.leave()
