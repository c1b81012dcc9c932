"""The guards' state in Postgres, for servers without a Redis; and their shared values, which are there in any case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import psycopg

from waystation.guarding.guard_names import owner_of, span
from waystation.guarding.ledger_operations import short
from waystation_db import guard_state
from waystation_db.errors import DatabaseUnavailable
from waystation_db.guard_state import Conn, KeptValue
from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_guards.ports import Admission, BreakerRules, Draw, Drawn, PortUnavailable, Rate

ANSWER_S: Final = 2.0
"""How long Postgres may take before a guard goes by its fail mode."""

T = TypeVar("T")


class PostgresState:
    """`waystation_guards.ports.State` of a tenant."""

    __slots__ = ("_answer_s", "_db", "_tenant")

    def __init__(self, db: Database, *, tenant: str = "default", answer_s: float = ANSWER_S) -> None:
        self._db = db
        self._tenant = tenant
        self._answer_s = answer_s

    async def take(self, name: str, rates: Sequence[Rate], cost: int = 1) -> float:
        return (await self.draw([Draw(name, rate, cost) for rate in rates])).wait_s

    async def draw(self, draws: Sequence[Draw], *, patience_s: float = 0.0) -> Drawn:
        if not draws:
            return Drawn(True, 0.0)
        asked = [
            {
                "tenant": owner_of(self._tenant, one.name),
                "name": short(one.name),
                "amount": one.rate.amount,
                "seconds": one.rate.seconds,
                "cost": one.cost,
            }
            for one in draws
        ]
        # Tried once: what was lost with the connection may have been taken, and would be taken twice.
        taken, wait_s, left = await self._once(lambda conn: guard_state.draw(conn, asked, patience_s=patience_s))
        return Drawn(taken, wait_s, tuple(left))

    async def give_back(self, name: str, rates: Sequence[Rate], cost: int) -> None:
        owner, name = owner_of(self._tenant, name), short(name)

        async def give(conn: Conn) -> None:
            for rate in rates:
                await guard_state.give_back(conn, owner, name, amount=rate.amount, seconds=rate.seconds, cost=cost)

        await self._once(give)

    async def pause(self, name: str, seconds: float) -> None:
        owner = owner_of(self._tenant, name)
        await self._ask(lambda conn: guard_state.pause(conn, owner, short(name), seconds=span(seconds)))

    async def enter(self, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
        owner = owner_of(self._tenant, name)
        return await self._ask(
            lambda conn: guard_state.enter(
                conn, owner, short(name), limit=limit, holder=short(holder), ttl_s=span(ttl_s)
            )
        )

    async def leave(self, name: str, *, holder: str) -> None:
        owner = owner_of(self._tenant, name)
        await self._ask(lambda conn: guard_state.leave(conn, owner, short(name), holder=short(holder)))

    async def admit(self, target: str, rules: BreakerRules) -> Admission:
        owner, name = owner_of(self._tenant, target), short(target)

        async def ask(conn: Conn) -> Admission:
            left_s = await guard_state.breaker(conn, owner, name)
            if left_s is None:
                return Admission(True)
            if left_s > 0:
                return Admission(False, retry_after_s=left_s)
            if await guard_state.probe(conn, owner, name, probe_s=span(rules.probe_s)):
                return Admission(True, is_probe=True)
            left_s = await guard_state.breaker(conn, owner, name)
            return Admission(True) if left_s is None else Admission(False, retry_after_s=max(left_s, 0.001))

        return await self._once(ask)

    async def report(
        self, target: str, rules: BreakerRules, *, ok: bool, is_probe: bool = False, retry_after_s: float = 0.0
    ) -> bool:
        owner = owner_of(self._tenant, target)
        return await self._once(
            lambda conn: guard_state.report(
                conn,
                owner,
                short(target),
                ok=ok,
                is_probe=is_probe,
                asked_s=span(retry_after_s),
                failure_rate=rules.failure_rate,
                minimum=rules.minimum,
                window_s=span(rules.window_s),
                cooldown_s=span(rules.cooldown_s),
            )
        )

    async def read(self, name: str) -> str | None:
        owner = owner_of(self._tenant, name)
        return await self._ask(lambda conn: guard_state.read_value(conn, owner, short(name)))

    async def write(self, name: str, value: str | None, *, ttl_s: float | None = None) -> None:
        await self.write_version(name, value, ttl_s=ttl_s)

    async def write_version(self, name: str, value: str | None, *, ttl_s: float | None = None) -> int:
        """Set or remove a shared value; its version, which only grows."""
        owner, seconds = owner_of(self._tenant, name), None if ttl_s is None else span(ttl_s)
        return await self._ask(lambda conn: guard_state.write_value(conn, owner, short(name), value, ttl_s=seconds))

    async def values(self, name: str) -> list[KeptValue]:
        """All shared values that belong to the owner of this name."""
        owner = owner_of(self._tenant, name)
        return await self._ask(lambda conn: guard_state.all_values(conn, owner))

    async def _ask(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """What may be asked twice."""
        return await answered(self._db, work, answer_s=self._answer_s)

    async def _once(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        return await answered(self._db, work, answer_s=self._answer_s, once=True)


async def answered(db: Database, work: Callable[[Conn], Awaitable[T]], *, answer_s: float, once: bool = False) -> T:
    """What Postgres answers within `answer_s` seconds. `once`: what may be done already is not sent again.

    Raises:
        PortUnavailable: it does not answer.
    """
    sent = False

    async def ask() -> T:
        nonlocal sent
        async with db.connection() as conn:
            if once and sent:
                raise PortUnavailable("the connection to Postgres was lost under a guard's question")
            sent = True
            try:
                return await work(conn)
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                sent = False  # nothing of it was done, for certain
                raise

    try:
        return await until_done(ask, retry_s=answer_s)
    except DatabaseUnavailable as error:
        raise PortUnavailable(str(error)) from error
