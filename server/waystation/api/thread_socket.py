"""A thread's events and commands on one WebSocket.

    client ── command ──▶ desk ──▶ answer ──┐
                │                           ├──▶ one send at a time, each with a deadline
       subscription ──▶ feed of the thread ─┘

One feed serves all subscriptions of a socket; a new one starts it again from where that one begins. What the client
does not read is not read from the log either. Close codes are 4000 + HTTP status where a client must not come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from waystation.api.commands import Answer, Call, Desk, answer, check_subscription, no_such_subscription, parse_call
from waystation.api.commands import refusal as refused
from waystation.api.commands import success as succeeded
from waystation.api.limits import parse_json
from waystation.api.long_answer import SEND_TIMEOUT_S, OpenStreams
from waystation.api.request_limits import RequestLimits
from waystation.api.runs import origin_of
from waystation.auth import caller_of
from waystation.errors import InvalidRequest, SlowReader, WaystationError
from waystation.events.filters import Filter
from waystation.events.protocol import ThreadEvent
from waystation.runs.thread_commands import Refused
from waystation.runs.thread_events import follow_thread
from waystation.services import Services
from waystation.services.encryption_handlers import enter_context
from waystation_db.errors import DatabaseUnavailable
from waystation_db.json import dumps

MAX_SUBSCRIPTIONS: Final = 100
MAX_COMMANDS: Final = 16
"""Commands of one socket that are worked on at a time; then the client has to wait."""

FAILED, RESTARTING, TRY_LATER = 1011, 1012, 1013
_NOT_JSON: Final = "Protocol commands must be valid JSON."

log = logging.getLogger(__name__)


def thread_of(path: str) -> str | None:
    """The thread whose socket a path names, as it is written there; None for other paths."""
    parts = path.split("/")
    is_ours = len(parts) == 5 and parts[0] == "" and parts[1] == "threads" and parts[3:] == ["stream", "events"]
    return parts[2] if is_ours else None


async def serve_thread_socket(scope: Scope, receive: Receive, send: Send, *, thread_id: str) -> None:
    """Serve one socket to its end."""
    streams: OpenStreams = scope["app"].state.streams
    services: Services = scope["app"].state.services
    limits: RequestLimits | None = scope["app"].limits
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept"})
    try:
        if streams.count >= streams.limit or streams.stopping.done():
            await _close(send, TRY_LATER, "Too many open streams on this server")
            return
        streams.enter(scope)
        if services.gate is not None:
            receive = await services.gate.authenticate(scope, receive)
        if limits is not None:
            await limits.admit_socket(scope)
        canonical = _canonical(thread_id)
        request = Request({**scope, "type": "http", "method": "GET"})
        await enter_context(services.db.cipher, request.headers.get("x-encryption-context"), scope.get("user"))
        desk = Desk(services, caller_of(scope), canonical, origin_of(request, None))
        await ThreadSocket(desk, receive, send, scope, limits).serve(streams)
    except WaystationError as error:
        await _close(send, 4000 + error.status, error.message)
    finally:
        streams.leave(scope)
        if limits is not None:
            await limits.leave(scope)


def _canonical(thread_id: str) -> str:
    try:
        return str(uuid.UUID(thread_id))
    except ValueError:
        raise InvalidRequest("Invalid thread ID: must be a UUID") from None


async def _close(send: Send, code: int, reason: str) -> None:
    with contextlib.suppress(Exception):  # the client may be gone already
        async with asyncio.timeout(SEND_TIMEOUT_S):
            shown = reason.encode()[:120].decode("utf-8", "ignore")
            await send({"type": "websocket.close", "code": code, "reason": shown})


class _Left(Exception):
    """The client closed the socket, or the connection is gone."""


@dataclass(slots=True)
class _Subscription:
    """What one subscription asks for, and up to which number it was served."""

    asked: Filter
    after: int


@dataclass(slots=True)
class ThreadSocket:
    """One open socket."""

    desk: Desk
    receive: Receive
    send: Send
    scope: Scope
    limits: RequestLimits | None = None
    delivered: int = 0
    """The highest number that went to the client."""
    _subscriptions: dict[str, _Subscription] = field(default_factory=dict[str, _Subscription])
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_COMMANDS))

    async def serve(self, streams: OpenStreams) -> None:
        """Until the client leaves, does not read, or the process stops."""
        code: int | None = FAILED
        reason = ""
        with streams.until_stopped() as stopped:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._hear(tasks))
                    tasks.create_task(self._feed())
                    tasks.create_task(_until(stopped))
            except* _Left:
                code = None
            except* _Stopped:
                code, reason = RESTARTING, "the server restarts"
            except* (SlowReader, TimeoutError):
                code, reason = TRY_LATER, "the client does not read"
            except* WaystationError as group:
                error = _first(group)
                code, reason = 4000 + error.status, error.message
            except* Exception as group:  # a socket's boundary: nothing but this connection depends on it
                if not all(isinstance(error, DatabaseUnavailable) for error in group.exceptions):
                    log.error("A socket broke off", exc_info=group)
                code, reason = FAILED, "thread stream ended"
        if code == FAILED:
            with contextlib.suppress(Exception):
                await self._say(refused(None, "unknown_error", "The thread's events cannot be read now."))
        if code is not None:
            await _close(self.send, code, reason)

    # -- commands --------------------------------------------------------------------------------------------------

    async def _hear(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                raise _Left
            call = self._call_in(message)
            if not isinstance(call, Call):
                await self._say(call)
            elif call.method.startswith("subscription."):
                await self._answer(call)
            else:
                await self._room.acquire()
                tasks.create_task(self._work(call))

    def _call_in(self, message: Message) -> Call | Answer:
        raw: bytes = message.get("bytes") or (message.get("text") or "").encode("utf-8", "surrogatepass")
        if len(raw) > self.desk.services.settings.max_body_bytes:
            return refused(None, "invalid_argument", "The command is too large.")
        try:
            return parse_call(parse_json(raw))
        except InvalidRequest:
            return refused(None, "invalid_argument", _NOT_JSON)

    async def _work(self, call: Call) -> None:
        try:
            await self._answer(call)
        finally:
            self._room.release()

    async def _answer(self, call: Call) -> None:
        answered = await self._answered(call)
        answered["meta"] = {"applied_through_seq": self.delivered}
        await self._say(answered)

    async def _answered(self, call: Call) -> Answer:
        try:
            match call.method:
                case "subscription.subscribe":
                    return succeeded(call.id, self._subscribe(call.method, call.params))
                case "subscription.reconnect":
                    subscribed = self._subscribe(call.method, call.params)
                    return succeeded(call.id, {"restored": True, **subscribed})
                case "subscription.unsubscribe":
                    return succeeded(call.id, self._unsubscribe(call.params))
                case _:
                    if self.limits is not None:
                        await self.limits.admit_command(self.scope)
                    return await answer(self.desk, call)
        except Refused as refusal:
            return refused(call.id, refusal.code, refusal.message)
        except WaystationError as error:
            code = "permission_denied" if error.status in (401, 403) else "unknown_error"
            return refused(call.id, code, f"{error.status}: {error.message}")
        except DatabaseUnavailable:
            return refused(call.id, "unknown_error", "503: The database is not available")

    def _subscribe(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        asked = cast("Filter", check_subscription(method, params))
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Refused("invalid_argument", f"A socket takes at most {MAX_SUBSCRIPTIONS} subscriptions.")
        subscription_id = str(uuid.uuid4())
        self._subscriptions[subscription_id] = _Subscription(asked, asked.since)
        self._changed.set()
        return {"subscription_id": subscription_id, "replayed_events": 0}

    def _unsubscribe(self, params: dict[str, Any]) -> dict[str, Any]:
        asked: Any = params.get("subscription_id")
        if not isinstance(asked, str) or self._subscriptions.pop(asked, None) is None:
            raise no_such_subscription(params)
        return {}

    # -- events ----------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Send the events that somebody subscribed to. Begins again where a new subscription does."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._subscriptions:
                await self._follow(min(one.after for one in self._subscriptions.values()))

    async def _follow(self, since: int) -> None:
        desk = self.desk
        source = follow_thread(desk.services, desk.caller, thread_id=desk.thread_id, since=since)
        async with contextlib.aclosing(source):
            while (batch := await self._next(source)) is not None:
                for event in batch:
                    await self._offer(event)
                    if self._changed.is_set():
                        return

    async def _next(self, source: Any) -> Sequence[ThreadEvent] | None:
        """The next batch; None when a subscription came meanwhile. What is being sent is never cut off by that."""
        coming = asyncio.ensure_future(anext(source))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((coming, changed), return_when=asyncio.FIRST_COMPLETED)
            if self._changed.is_set():
                return None
            return cast("Sequence[ThreadEvent]", await coming)
        except StopAsyncIteration:
            raise _Stopped from None
        finally:
            for task in (coming, changed):
                task.cancel()
            await asyncio.wait((coming, changed))

    async def _offer(self, event: ThreadEvent) -> None:
        wanted = False
        for subscription in self._subscriptions.values():
            if subscription.after < event.seq:
                subscription.after = event.seq
                wanted = wanted or subscription.asked.passes(event)
        if wanted:
            self.delivered = max(self.delivered, event.seq)
            await self._transmit(event.data)

    async def _say(self, said: Answer) -> None:
        await self._transmit(dumps(said))

    async def _transmit(self, data: bytes) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            async with self._sending:
                await self.send({"type": "websocket.send", "text": data.decode()})


class _Stopped(Exception):
    """The process stops."""


async def _until(stopped: asyncio.Future[None]) -> None:
    await stopped
    raise _Stopped


def _first(group: BaseExceptionGroup[Any]) -> WaystationError:
    error = cast("Any", group.exceptions[0])
    return _first(cast("Any", error)) if isinstance(error, BaseExceptionGroup) else error
