"""Answers that last: the head goes out at once, the body when there is something, fillers in between.

    client ◀── head ── filler every 5 s ── body … ── end
                 │
                 ├─ the producer finishes        → the answer is complete
                 ├─ the client leaves            → the producer is cancelled, `on_leave` is called
                 ├─ the client does not read     → the connection is dropped
                 └─ the process stops, or a fault → the connection is dropped

Dropped means closed without the end of the chunked body: SDKs take that for a lost connection and come back to the
`Location`, where a clean end could pass for the end of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from waystation.errors import SlowReader, Unavailable
from waystation.telemetry import metrics

FILLER_S = 5.0
"""Silence after which a filler is sent, so that proxies keep the connection."""

SEND_TIMEOUT_S = 30.0
"""How long a client may leave what was sent unread before it is dropped."""

SEND_BYTES = 64 * 1024
"""What is handed to a socket at a time: with as much in the socket's own buffer, all that a client that does not read
costs, however large the event."""

UNWATCHED_S = 0.25
"""From when on a client's leaving is looked for; it has to be noticed within about a second."""

_PLACE = "waystation.place"
"""Stands in the scope of a request that is counted among the open streams."""

log = logging.getLogger(__name__)

OnLeave = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class OpenStreams:
    """The long answers of this process: how many there are, and the signal that ends them when the process stops."""

    limit: int
    stopping: asyncio.Future[None]
    count: int = field(default=0)
    draining: bool = field(default=False)
    """The process is about to stop: probes are told, streams go on."""
    _open: set[asyncio.Future[None]] = field(default_factory=set[asyncio.Future[None]])

    def enter(self, scope: Scope) -> None:
        """Count the answer to a request in, once."""
        if not scope.get(_PLACE):
            scope[_PLACE] = True
            self._count(1)

    def leave(self, scope: Scope) -> None:
        """Count it out, if it was counted in: the request is done with, whatever became of it."""
        if scope.pop(_PLACE, False):
            self._count(-1)

    def _count(self, change: int) -> None:
        self.count += change
        metrics.STREAMS_OPEN.set(self.count)

    def stop(self) -> None:
        """Drop all of them, and those to come. Called on the API's loop when the process begins to stop."""
        if not self.stopping.done():
            self.stopping.set_result(None)
        for stopped in self._open:
            if not stopped.done():
                stopped.set_result(None)

    @contextlib.contextmanager
    def until_stopped(self) -> Generator[asyncio.Future[None]]:
        """A future of one answer's own that is done when it is to stop. Waiting on one that all share would take each
        of them a walk past all the others, at every heartbeat."""
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.stopping.done():
            stopped.set_result(None)
        self._open.add(stopped)
        try:
            yield stopped
        finally:
            self._open.discard(stopped)


def ensure_room(request: Request) -> None:
    """Before a run is created for a reader: takes the reader's place, so that many who come at once do not all find
    the last one free.

    Raises:
        Unavailable: as many readers are connected as the process serves, or it is stopping.
    """
    streams: OpenStreams = request.app.state.streams
    if streams.count >= streams.limit or streams.stopping.done():
        raise Unavailable("Too many open streams on this server", headers={"Retry-After": "5"})
    streams.enter(request.scope)


class Ending(enum.Enum):
    """How a long answer came to its end."""

    COMPLETE = "complete"
    LEFT = "left"
    DROPPED = "dropped"


class Outlet:
    """The way to the client; knows since when it has been silent or stuck."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._now = asyncio.get_running_loop().time
        self._busy = False
        self._since = self._now()

    async def send(self, chunk: bytes) -> None:
        """Hand a chunk to the socket, a large one slice by slice; waits while the client is behind."""
        if len(chunk) <= SEND_BYTES:
            await self._hand_over(chunk)
            return
        for start in range(0, len(chunk), SEND_BYTES):
            await self._hand_over(chunk[start : start + SEND_BYTES])

    async def _hand_over(self, chunk: bytes) -> None:
        self._busy, self._since = True, self._now()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._busy, self._since = False, self._now()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last chunk was taken, or since the present one has been waiting."""
        return self._now() - self._since

    @property
    def is_stuck(self) -> bool:
        return self._busy


class LongAnswer(Response):
    """Status 200 at once; `produce` makes the body."""

    filler: bytes

    def __init__(
        self,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        on_leave: OnLeave | None = None,
        filler_s: float = FILLER_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.body = b""
        self.init_headers(headers)
        del self.headers["content-length"]
        self._on_leave = on_leave
        self._filler_s = filler_s
        self._send_timeout_s = send_timeout_s

    @abstractmethod
    async def produce(self, out: Outlet) -> bytes:
        """Send the body but for its last chunk, which is returned; any exception drops the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        streams: OpenStreams = scope["app"].state.streams
        out = Outlet(send)
        streams.enter(scope)
        producer = asyncio.create_task(self.produce(out))
        try:
            with streams.until_stopped() as stopped:
                ending = await self._attend(out, producer, receive, stopped)
        finally:
            if not producer.done():
                await _cancel(producer)
        if ending is Ending.COMPLETE:
            await send({"type": "http.response.body", "body": producer.result(), "more_body": False})
        elif ending is Ending.LEFT and self._on_leave is not None:
            await self._on_leave()

    async def _attend(
        self, out: Outlet, producer: asyncio.Task[bytes], receive: Receive, stopping: asyncio.Future[None]
    ) -> Ending:
        # Most waits are over before anybody could have left: those are spared the second task.
        await asyncio.wait((producer, stopping), timeout=UNWATCHED_S, return_when=asyncio.FIRST_COMPLETED)
        if producer.done():
            return _ending_of(producer)
        gone = asyncio.create_task(until_disconnect(receive))
        try:
            return await self._watch(out, producer, gone, stopping)
        finally:
            await _cancel(gone)

    async def _watch(
        self, out: Outlet, producer: asyncio.Task[bytes], gone: asyncio.Task[None], stopping: asyncio.Future[None]
    ) -> Ending:
        watched: tuple[asyncio.Future[Any], ...] = (producer, gone, stopping)
        while True:
            await asyncio.wait(watched, timeout=self._until_due(out), return_when=asyncio.FIRST_COMPLETED)
            if producer.done():
                return _ending_of(producer)
            if gone.done():
                return Ending.LEFT
            if stopping.done():
                return Ending.DROPPED
            if not out.is_stuck:
                if out.quiet_s >= self._filler_s:
                    await self._fill(out)
            elif out.quiet_s >= self._send_timeout_s:
                log.info("Dropped a client that does not read")
                return Ending.DROPPED

    def _until_due(self, out: Outlet) -> float:
        return max(0.01, (self._send_timeout_s if out.is_stuck else self._filler_s) - out.quiet_s)

    async def _fill(self, out: Outlet) -> None:
        with contextlib.suppress(TimeoutError):  # still stuck afterwards: seen in the next round
            async with asyncio.timeout(self._send_timeout_s):
                await out.send(self.filler)


def _ending_of(producer: asyncio.Task[bytes]) -> Ending:
    error = None if producer.cancelled() else producer.exception()
    if producer.cancelled():
        return Ending.DROPPED
    if error is None:
        return Ending.COMPLETE
    if isinstance(error, SlowReader):
        log.info("Dropped a client that fell behind")
    else:  # the answer's boundary: nothing but this connection depends on it
        log.error("A long answer broke off", exc_info=error)
    return Ending.DROPPED


async def until_disconnect(receive: Receive) -> None:
    """Return when the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))
