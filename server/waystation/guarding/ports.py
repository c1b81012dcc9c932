"""The guards' ports of a process: opened once for each of its loops, and bound to a caller for every run.

stores = guard_stores(db, redis)                          with the loop's other resources; `close` when it ends
ports = stores.ports_for(tenant, key)                     for a run: three small objects and no round trip
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from waystation.events.redis_pipe import RedisPipe
from waystation.guarding import postgres_cache, postgres_ledger, postgres_state
from waystation.guarding.postgres_cache import PostgresCache
from waystation.guarding.postgres_ledger import LedgerDesk, PostgresLedger
from waystation.guarding.postgres_state import PostgresState
from waystation.guarding.redis_cache import RedisCache
from waystation.guarding.redis_state import RedisState
from waystation_db.pool import Database
from waystation_guards.ports import Ports


@dataclass(frozen=True, slots=True)
class GuardStores:
    """What the ports of one loop stand on. `answer_s`: how long Postgres or Redis may take before a guard goes by its
    fail mode; None: as long as is said where each port is kept."""

    db: Database
    redis: RedisPipe | None
    desk: LedgerDesk
    loop: asyncio.AbstractEventLoop
    answer_s: float | None = None

    def ports_for(self, tenant: str, key: str = "") -> Ports:
        """The ports of a caller: of a tenant, and of the API key with this id."""
        ledger = PostgresLedger(self.desk, tenant=tenant)
        kept = PostgresState(self.db, tenant=tenant, answer_s=self.answer_s or postgres_state.ANSWER_S)
        if self.redis is None:
            answers = PostgresCache(self.db, tenant=tenant, answer_s=self.answer_s or postgres_cache.ANSWER_S)
            return Ports(ledger, kept, answers, tenant=tenant, key=key, loop=self.loop)
        state = RedisState(self.redis, durable=kept, tenant=tenant)
        cache = RedisCache(self.redis, tenant=tenant, cipher=self.db.cipher)
        return Ports(ledger, state, cache, tenant=tenant, key=key, loop=self.loop)

    async def close(self) -> None:
        """End what is under way. The database is its owner's to close, after this."""
        await self.desk.close()
        if self.redis is not None:
            await self.redis.close()


def guard_stores(
    db: Database,
    redis_uri: str | None = None,
    *,
    key_prefix: str = "",
    loop: asyncio.AbstractEventLoop | None = None,
    answer_s: float | None = None,
) -> GuardStores:
    """The stores of a loop, of the one that runs now unless it is named. Without a Redis, Postgres keeps everything.
    Opens no connection."""
    redis = RedisPipe(redis_uri, key_prefix=key_prefix, answer_s=answer_s) if redis_uri else None
    desk = LedgerDesk(db, answer_s=answer_s or postgres_ledger.ANSWER_S)
    return GuardStores(db, redis, desk, loop or asyncio.get_running_loop(), answer_s)
