"""Lua scripts that Redis runs for guards: each one atomic step on Redis's own clock.

They go in the same round trips as everything else that waits at the moment (`RedisPipe`). A script that Redis does not
know yet is sent whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any, cast

from redis.asyncio.client import Pipeline
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
)

from waystation.events.redis_pipe import Fill, RedisAway, RedisPipe
from waystation_guards.ports import PortUnavailable

_AWAY = (OutOfMemoryError, ReadOnlyError, BusyLoadingError, MasterDownError, ClusterDownError)
_AWAY_CODES = ("MISCONF", "NOREPLICAS")


@dataclass(frozen=True, slots=True)
class Script:
    """A script by its digest."""

    text: str
    digest: str

    @classmethod
    def named(cls, name: str) -> Script:
        """The script of lua/`name`.lua."""
        text = (files("waystation.guarding") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
        return cls(text, sha1(text.encode()).hexdigest())  # Redis's own name for it

    async def run(self, pipe: RedisPipe, keys: Sequence[str], *args: object) -> Any:
        """What the script returns.

        Raises:
            PortUnavailable: Redis is away, or cannot write.
        """
        given = cast("list[Any]", [*keys, *args])
        answer = await ask(pipe, lambda to: _queue(to.evalsha(self.digest, len(keys), *given)))
        if isinstance(answer, NoScriptError):
            answer = await ask(pipe, lambda to: _queue(to.eval(self.text, len(keys), *given)))
        return checked(pipe, answer)


async def ask(pipe: RedisPipe, fill: Fill) -> Any:
    """The answer to one command; a refusal of it is returned. Raises PortUnavailable."""
    try:
        (answer,) = await pipe.ask(fill)
    except RedisAway as error:
        raise PortUnavailable(f"Redis is away: {error}") from error
    return answer


def checked(pipe: RedisPipe, answer: Any) -> Any:
    """The answer, unless Redis refused. Raises PortUnavailable."""
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, _AWAY) or str(answer).startswith(_AWAY_CODES):
        pipe.mark_away()
    raise PortUnavailable(f"Redis refuses: {answer}") from answer


def _queue(_queued: Pipeline | Any) -> int:
    return 1
