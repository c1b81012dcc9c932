"""`rate_limiter=` of LangChain's models, kept by all processes together where `InMemoryRateLimiter` is one process's.

    model = ChatOpenAI(model="gpt-4o", rate_limiter=SharedRateLimiter("openai/gpt-4o", requests=500))

LangChain tells such a limiter nothing of the call. Tokens, open calls, and what a provider reports need `RateLimit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from langchain_core.rate_limiters import BaseRateLimiter

from waystation_guards.blocking import at_home, wait_for
from waystation_guards.calls import current_config
from waystation_guards.errors import RateLimited
from waystation_guards.ports import Draw, Ports, ports_of
from waystation_guards.rates.rules import ModelRate, requests_of


class SharedRateLimiter(BaseRateLimiter):
    """So many requests per `seconds` to a target. It draws from the same buckets as a `RateLimit` with the same numbers
    for this target."""

    def __init__(
        self,
        target: str,
        *,
        requests: int,
        seconds: float = 60.0,
        burst: float = 1.0,
        wait_s: float = 600.0,
        ports: Ports | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`wait_s`: how long a call may wait. `ports`: whose state is used; those of the running node, or of the
        process, where there are none."""
        self._draw: Draw = requests_of(
            ModelRate(target=target, requests=requests, seconds=seconds, burst=burst), target
        )
        self._target = target
        self._wait_s = wait_s
        self._ports = ports
        self._sleep = sleep

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait in this thread. See `aacquire`."""
        ports = self._ports or ports_of(current_config())
        return wait_for(self._acquire(ports, blocking), ports.loop)

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Wait for the turn of one request; without `blocking`, say whether it may go now.

        Raises:
            RateLimited: it would have to wait longer than `wait_s`.
            PortUnavailable: the shared state is away.
        """
        ports = self._ports or ports_of(current_config())
        return await at_home(self._acquire(ports, blocking), ports.loop)

    async def _acquire(self, ports: Ports, blocking: bool) -> bool:
        drawn = await ports.state.draw([self._draw], patience_s=self._wait_s if blocking else 0.0)
        if not drawn.taken:
            if not blocking:
                return False
            raise RateLimited(
                f"{self._target} is at its limit of requests: try again in {max(1, round(drawn.wait_s))} s",
                retry_after_s=drawn.wait_s,
            )
        try:
            if drawn.wait_s:
                await self._sleep(drawn.wait_s)
        except BaseException:
            await ports.state.give_back(self._draw.name, [self._draw.rate], 1)
            raise
        return True
