"""One connection to Redis that listens for all readers of a loop: a channel for each run that is read here.

A message is only a hint. It may be lost with the connection, never silently: each channel that is subscribed again
wakes its readers, and while there is no connection all of them are woken at every attempt to get one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Protocol, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from waystation.events.batcher import Batcher

logger = logging.getLogger(__name__)

_PAUSE_S = 0.5
_CONNECT_S = 1.0
# A connection that says nothing for so long is asked whether it still lives.
_SILENCE_S = 5.0
_AT_ONCE = 500
# How long a reader waits for its subscription before it begins without: it is woken when the subscription stands.
_CONFIRM_S = 1.0


class _Connection(Protocol):
    """What is used here of redis-py's connection, whose own types say little."""

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def send_command(self, *args: str) -> None: ...
    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None) -> Any: ...


class RedisHints:
    """The subscriptions of one loop."""

    def __init__(self, redis: Redis, *, wake: Callable[[str], None], wake_all: Callable[[], None]) -> None:
        """`wake` gets the channel that a message came on; `wake_all` is called while messages may be lost."""
        self._redis = redis
        self._wake = wake
        self._wake_all = wake_all
        self._wanted: dict[str, asyncio.Event] = {}
        self._sent: set[str] = set()
        self._unconfirmed = Counter[str]()
        self._sending = Batcher[str, None](self._send, limit=_AT_ONCE)
        self._connection: _Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._is_away = False

    def subscribe(self, channel: str) -> None:
        """Ask for a channel's messages; `ready` waits until they come for certain."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())
        if channel not in self._wanted:
            self._wanted[channel] = asyncio.Event()
            self._change(channel)

    def unsubscribe(self, channel: str) -> None:
        """Do without a channel's messages."""
        if self._wanted.pop(channel, None) is not None:
            self._change(channel)

    async def ready(self, channel: str) -> None:
        """Return when the subscription stands, or when it cannot be had now: `wake` is called once it does."""
        confirmed = self._wanted.get(channel)
        if confirmed is None or confirmed.is_set() or self._is_away:
            return
        try:
            async with asyncio.timeout(_CONFIRM_S):
                await confirmed.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        self._release()
        tasks = [*self._changes, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sending.close()

    def _release(self) -> None:
        """Nobody waits for what cannot be had now."""
        for confirmed in self._wanted.values():
            confirmed.set()

    def _change(self, channel: str) -> None:
        if self._connection is not None:
            task = asyncio.get_running_loop().create_task(self._sending.ask(channel))
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    async def _send(self, channels: Sequence[str]) -> Sequence[None]:
        """Bring the subscriptions of these channels to what is wanted of them."""
        connection = self._connection
        distinct = set(channels)
        missing = [channel for channel in distinct if channel in self._wanted and channel not in self._sent]
        needless = [channel for channel in distinct if channel not in self._wanted and channel in self._sent]
        if connection is not None:
            self._sent.update(missing)
            self._sent.difference_update(needless)
            self._unconfirmed.update(missing)
            for channel in distinct:
                # Given up and wanted again before anything was sent: the subscription stands as it did.
                if channel in self._sent and not self._unconfirmed[channel]:
                    self._wanted[channel].set()
            try:
                if missing:
                    await connection.send_command("SUBSCRIBE", *missing)
                if needless:
                    await connection.send_command("UNSUBSCRIBE", *needless)
            except (RedisError, OSError, TimeoutError):
                # The listening task sees it too, and connects again.
                await connection.disconnect(nowait=True)
        return [None] * len(channels)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                if not self._is_away:
                    logger.warning("lost the connection that listens to Redis", extra={"error": str(error)})
            self._is_away = True
            self._release()
            self._wake_all()
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self) -> None:
        # redis-py's connection has these methods; its own annotations are partial.
        connection = cast("_Connection", self._redis.connection_pool.make_connection())
        try:
            async with asyncio.timeout(_CONNECT_S):
                await connection.connect()
            if self._is_away:
                logger.info("listening to Redis again")
                self._is_away = False
            await self._subscribe_all(connection)
            await self._receive(connection)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _subscribe_all(self, connection: _Connection) -> None:
        self._sent.clear()
        self._unconfirmed.clear()
        self._connection = connection
        wanted = list(self._wanted)
        for start in range(0, len(wanted), _AT_ONCE):
            await self._send(wanted[start : start + _AT_ONCE])

    async def _receive(self, connection: _Connection) -> None:
        is_asked = False
        while True:
            answer = await connection.read_response(disable_decoding=True, timeout=_SILENCE_S)
            if answer is not None:
                is_asked = False
                self._handle(answer)
            elif is_asked:
                raise TimeoutError("Redis is silent")
            else:
                is_asked = True
                await connection.send_command("PING")

    def _handle(self, answer: Any) -> None:
        match answer:
            case [b"message", bytes(channel), _]:
                self._wake(channel.decode())
            case [b"subscribe", bytes(channel), _]:
                self._confirm(channel.decode())
            case _:  # an answer to PING, or an unsubscription
                pass

    def _confirm(self, channel: str) -> None:
        self._unconfirmed[channel] -= 1
        if self._unconfirmed[channel] > 0:
            return
        del self._unconfirmed[channel]
        if channel in self._wanted:
            self._wanted[channel].set()
            self._wake(channel)
