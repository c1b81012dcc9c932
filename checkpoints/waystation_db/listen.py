"""One connection that LISTENs for a whole process and hands each notification to whoever subscribed to its channel.

    Postgres ──NOTIFY──▶ one direct connection ──▶ Subscription (bounded queue), Subscription, ...

A notification is a hint: whatever it announces is found in the tables as well. After a reconnect, or when a reader was
too slow for its queue, hints may be missing; the reader then gets a `Gap` and looks for itself. LISTEN is session
state, so the address must lead to Postgres itself and not to a pooler in transaction mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, sql

from waystation_db.errors import DatabaseUnavailable
from waystation_db.pool import normalize_conninfo
from waystation_db.sql import load

_sql = load("listen")
_LISTEN, _BACKEND = _sql["listen"], _sql["backend"]
_log = logging.getLogger(__name__)
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 2.0
# A peer that vanished without a packet is noticed by asking it; the answer must come within the second figure.
_PROBE_EVERY_S = 15.0
_PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Notification:
    """What one NOTIFY said."""

    channel: str
    payload: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Notifications may have been missed here: look at the tables now."""


class Subscription:
    """The notifications of some channels for one reader, in order; iterate over it. Made by `Listener.subscribe`."""

    def __init__(self, channels: frozenset[str], limit: int) -> None:
        self.channels = channels
        self._limit = limit
        self._queue: asyncio.Queue[Notification | Gap | None] = asyncio.Queue()
        self._has_gap = False

    def __aiter__(self) -> AsyncIterator[Notification | Gap]:
        return self

    async def __anext__(self) -> Notification | Gap:
        """Wait for the next one; the iteration ends when the listener is closed."""
        item = await self._queue.get()
        if item is None:
            self._queue.put_nowait(None)
            raise StopAsyncIteration
        if isinstance(item, Gap):
            self._has_gap = False
        return item

    def offer(self, item: Notification) -> None:
        """For the listener: queue `item`, or where the queue is full drop all of it for one Gap."""
        if self._queue.qsize() < self._limit:
            self._queue.put_nowait(item)
            return
        while not self._queue.empty():
            self._queue.get_nowait()
        self._has_gap = False
        self.offer_gap()

    def offer_gap(self) -> None:
        """For the listener: one unread Gap says as much as many."""
        if not self._has_gap:
            self._has_gap = True
            self._queue.put_nowait(Gap())

    def end(self) -> None:
        """For the listener: nothing more will come."""
        self._queue.put_nowait(None)


class Listener:
    """Listens on `channels` from `open` to `close`, reconnecting as often as it must."""

    def __init__(self, conninfo: str, channels: Iterable[str], *, name: str = "waystation-listen") -> None:
        self._conninfo = normalize_conninfo(conninfo, application_name=name)
        self._channels = tuple(channels)
        self._subscriptions: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._is_closed = False

    async def open(self, *, timeout_s: float = 10.0) -> Self:
        """Start, and return once it listens. Raises DatabaseUnavailable when that takes longer than `timeout_s`."""
        self._task = asyncio.create_task(self._run(), name="listener")
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            await self.close()
            raise DatabaseUnavailable(f"cannot listen on Postgres within {timeout_s:.0f} s") from None
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Stop listening and end all subscriptions, for good."""
        self._is_closed = True
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for subscription in self._subscriptions:
            subscription.end()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether hints arrive now; while they do not, polling is all there is."""
        return self._connected.is_set()

    @contextmanager
    def subscribe(self, *channels: str, limit: int = 1000) -> Generator[Subscription]:
        """Receive, for the length of the block, what comes on `channels` (all that are listened on by default).

        At most `limit` unread notifications are kept; beyond it they give way to one Gap.
        """
        chosen = frozenset(channels or self._channels)
        if unknown := chosen.difference(self._channels):
            raise ValueError(f"nobody listens on {', '.join(sorted(unknown))}")
        subscription = Subscription(chosen, limit)
        self._subscriptions.add(subscription)
        if self._is_closed:
            subscription.end()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def _run(self) -> None:
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._conninfo, autocommit=True, prepare_threshold=None
                ) as conn:
                    await self._listen(conn)
                    pause_s = _FIRST_RETRY_S
                    await self._hand_out(conn)
            except (psycopg.Error, OSError) as error:
                _log.warning("the listening connection to Postgres was lost", extra={"error": str(error).strip()})
            finally:
                self._connected.clear()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, _LAST_RETRY_S)

    async def _listen(self, conn: AsyncConnection[Any]) -> None:
        if await (await conn.execute(_BACKEND)).fetchone() != (conn.info.backend_pid,):
            _log.warning(
                "a pooler stands before the Postgres that is listened on; in transaction mode nothing can be heard "
                "through it and polling is all there is: set WAYSTATION_LISTEN_URI to a direct address"
            )
        for channel in self._channels:
            await conn.execute(sql.SQL(_LISTEN).format(channel=sql.Identifier(channel)))
        self._connected.set()
        # On the first connect as well: subscribers may have been there before it.
        for subscription in self._subscriptions:
            subscription.offer_gap()

    async def _hand_out(self, conn: AsyncConnection[Any]) -> None:
        while True:
            async for notify in conn.notifies(timeout=_PROBE_EVERY_S):
                item = Notification(notify.channel, notify.payload)
                for subscription in self._subscriptions:
                    if item.channel in subscription.channels:
                        subscription.offer(item)
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await conn.execute("")
            except TimeoutError:
                raise OSError("Postgres does not answer") from None
