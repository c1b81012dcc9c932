"""Is the process able to serve, dependency by dependency."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from waystation.events.redis_pipe import connect
from waystation.runs.guard_figures import states_of_targets
from waystation.services import GraphSide, Services

DEADLINE_S = 2.0
"""How long a dependency may take to answer a check."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """The state of one dependency. Without one that is not `required` the process serves, with less."""

    name: str
    is_up: bool
    required: bool


async def check_all(services: Services) -> list[Check]:
    """All dependencies at the same time, each within the deadline."""
    probes = [_probe("postgres", lambda: ping_postgres(services)), _probe("graphs", lambda: _graph_loop(services))]
    if (uri := services.settings.redis_uri) is not None:
        # Live events come from Postgres while it is away, so losing it takes no process out of service.
        probes.append(_probe("redis", lambda: _ping_redis(uri), required=False))
    return await asyncio.gather(*probes)


async def ping_postgres(services: Services) -> None:
    """One round trip to Postgres. Raises whatever is wrong, at the latest after the deadline."""
    async with asyncio.timeout(DEADLINE_S), services.db.connection(timeout_s=DEADLINE_S) as conn:
        await conn.execute("select 1")


async def states_of_models(services: Services) -> dict[str, str]:
    """The targets of the policy's failovers: `up`, or `down` while their breaker is open. Empty where that cannot be
    found out, or nobody would know."""
    if services.project.guards is None or not services.project.guards.failover:
        return {}
    try:
        async with asyncio.timeout(DEADLINE_S):
            states = await states_of_targets(services)
    except Exception as error:  # a report beside the answer: whatever is wrong, the checks themselves tell
        log.info("The breakers cannot be read", extra={"error": type(error).__name__})
        return {}
    return {target: "down" if is_open else "up" for target, is_open in states.items()}


async def _ping_redis(uri: str) -> None:
    # A connection of its own: whether the one in use has noticed a loss yet is another question.
    async with connect(uri) as client:
        await client.ping()  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped


async def _graph_loop(services: Services) -> None:
    async def answer(_side: GraphSide) -> None:
        return

    await services.graphs.call(answer)


async def _probe(name: str, ask: Callable[[], Awaitable[None]], *, required: bool = True) -> Check:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await ask()
    except Exception as error:  # the answer to "is it up" is no, whatever went wrong
        log.info("A dependency does not answer", extra={"dependency": name, "error": type(error).__name__})
        return Check(name, is_up=False, required=required)
    return Check(name, is_up=True, required=required)
