"""One connection to Redis for everything that a loop asks of it: what waits at the same moment is one round trip.

When Redis does not do what it is asked, `ask` raises `RedisAway`; until it takes writes again, every call does so at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from waystation.events.batcher import Batcher
from waystation_db.rows import RunKey

_ANSWER_S = 1.0
_PROBE_S = 0.5
_AT_ONCE = 256

# Puts commands into a pipeline and returns how many.
Fill = Callable[[Pipeline], int]


class RedisAway(Exception):
    """Redis is down, hangs or cannot write; what was asked may or may not have been done."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of a run's things in Redis; they share a hash tag, so that a cluster keeps them together."""

    prefix: str

    def stream(self, key: RunKey) -> str:
        return self._of(key, "events")

    def end(self, key: RunKey) -> str:
        return self._of(key, "end")

    def channel(self, key: RunKey) -> str:
        return self._of(key, "hint")

    def _of(self, key: RunKey, what: str) -> str:
        return f"{self.prefix}waystation:{{{key.tenant_id}/{key.run_id}}}:{what}"


def connect(url: str, *, answer_s: float | None = None) -> Redis:
    """A client that gives up after a second, or `answer_s`, does not try again by itself, and does not decode."""
    patience_s = answer_s or _ANSWER_S
    of_tcp = {} if url.startswith("unix://") else {"socket_keepalive": True}
    return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
        url,
        protocol=2,
        socket_timeout=patience_s,
        socket_connect_timeout=patience_s,
        **of_tcp,
        retry=Retry(NoBackoff(), 0),
    )


def publish(pipe: Pipeline, channel: str) -> None:
    """Put a hint into a pipeline."""
    pipe.publish(channel, b"")  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped


class RedisPipe:
    """Commands to Redis, grouped."""

    def __init__(
        self,
        url: str,
        *,
        key_prefix: str = "",
        came_back: Callable[[], None] = lambda: None,
        answer_s: float | None = None,
    ) -> None:
        """`came_back` is called when Redis takes writes again after it was away. `answer_s`: how long it may take
        before it counts as away; None: a second."""
        self.keys = Keys(key_prefix)
        self.redis = connect(url, answer_s=answer_s)
        self._came_back = came_back
        self._batches = Batcher[Fill, list[Any]](self._execute, limit=_AT_ONCE)
        self._probe: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether the last thing asked of Redis was done."""
        return self._probe is None

    async def ask(self, fill: Fill) -> list[Any]:
        """The answers to the commands that `fill` puts into the pipeline, refusals of single commands among them."""
        self._refuse_while_away()
        return await self._batches.ask(fill)

    def mark_away(self) -> None:
        """Redis answered in a way that means it is of no use now: full, read-only, loading."""
        if self._probe is None:
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_up())

    async def close(self) -> None:
        await self._batches.close()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self.redis.aclose()

    async def _execute(self, fills: Sequence[Fill]) -> Sequence[list[Any] | Exception]:
        self._refuse_while_away()
        pipe = self.redis.pipeline(transaction=False)
        counts = [fill(pipe) for fill in fills]
        try:
            answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            self.mark_away()
            raise RedisAway(str(error)) from error
        taken = iter(answers)
        return [[next(taken) for _ in range(count)] for count in counts]

    def _refuse_while_away(self) -> None:
        if self._probe is not None:
            raise RedisAway("Redis did not answer a moment ago")

    async def _probe_until_up(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_S)
            if await self._takes_writes():
                break
        self._probe = None
        self._came_back()

    async def _takes_writes(self) -> bool:
        try:
            # A full or read-only server answers pings.
            await self.redis.set(f"{self.keys.prefix}waystation:probe", b"", ex=1)
        except (RedisError, OSError, TimeoutError):
            return False
        return True
