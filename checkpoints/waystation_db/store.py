"""The long-term store: what graphs get as `runtime.store` and `get_store()`, and what `/store` serves.

    PostgresStore of a tenant ──▶ names (store_names) ──▶ StoreOperations of this loop ──▶ LangGraph's table `store`

It is a `BaseStore` of our own on the table of LangGraph's `AsyncPostgresStore`, so that an existing database is served
as it is. That one has no tenants, compares numbers as texts in filters, keeps the vectors of replaced values, leaves
items without vectors out of a search by meaning, pages such a search wrongly, rounds a TTL to minutes, and needs
pgvector.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

from langgraph.store.base import BaseStore, Op, PutOp, Result, TTLConfig, validate_op_namespace

from waystation_db.pool import Database
from waystation_db.sql import load
from waystation_db.store_names import Scope, check_put
from waystation_db.store_operations import StoreOperations, Unit
from waystation_db.store_setup import build_ann_index, vector_space
from waystation_db.store_vectors import Embed, StoreIndex
from waystation_db.tenants import DEFAULT_TENANT

_SWEEP = load("store")["sweep"]
_SWEEP_BATCH = 500


@asynccontextmanager
async def open_store(
    db: Database, *, index: StoreIndex | None = None, ttl: TTLConfig | None = None, retry_s: float = 30.0
) -> AsyncGenerator[PostgresStore]:
    """Open the default tenant's store on the running loop; with `index`, get the database ready for vectors.

    Operations wait out a database that is away for `retry_s` seconds.

    Raises:
        StoreIndexChanged: the vectors in the database have another length than `index` says.
        DatabaseUnavailable: no Postgres.
    """
    space = None
    if index is not None:
        index, space = await vector_space(db, index)
    operations = StoreOperations(db, index=index, space=space, retry_s=retry_s)
    building = None
    if index is not None and space is not None and space.nearest is not None:
        building = asyncio.create_task(build_ann_index(db, index), name="store index")
    try:
        yield PostgresStore(operations, Scope.of(DEFAULT_TENANT), ttl=ttl)
    finally:
        await operations.aclose()
        if building is not None:
            building.cancel()
            await asyncio.wait([building])


class PostgresStore(BaseStore):
    """One tenant's items, on one event loop; made by `open_store` and `of`.

    The async methods may be awaited on any loop, the others be called in any thread but that of its loop.
    """

    supports_ttl = True

    def __init__(self, operations: StoreOperations, scope: Scope, *, ttl: TTLConfig | None) -> None:
        self._operations = operations
        self._scope = scope
        self.ttl_config = ttl

    def of(self, tenant_id: str) -> PostgresStore:
        """The same store with the eyes of a tenant: it sees nothing but that one's items."""
        scope = Scope.of(tenant_id)
        return self if scope == self._scope else PostgresStore(self._operations, scope, ttl=self.ttl_config)

    @asynccontextmanager
    async def beside(self, db: Database, *, embed: Embed | None = None) -> AsyncGenerator[PostgresStore]:
        """The same store on another loop's pool; texts are embedded by `embed`, which may lead back to this loop."""
        ours = self._operations
        index = ours.index and ours.index.with_embed(embed or ours.index.embed)
        operations = StoreOperations(db, index=index, space=ours.space, retry_s=ours.retry_s)
        try:
            yield PostgresStore(operations, self._scope, ttl=self.ttl_config)
        finally:
            await operations.aclose()

    @property
    def index(self) -> StoreIndex | None:
        """How items are embedded; None where the store does not search by meaning."""
        return self._operations.index

    @property
    def compares_all_vectors(self) -> bool:
        """Whether searches by meaning do without pgvector."""
        return self._operations.space is not None and self._operations.space.exact

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """What the configured embedding function says, on this store's loop. Raises whatever it raises."""
        index = self._operations.index
        if index is None:
            raise ValueError("store.index is not configured")
        return await index.embed(list(texts))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out the operations in one transaction; reads see what was there before the writes.

        Raises:
            InvalidNamespaceError, InvalidFilter, ValueError, TypeError: an operation makes no sense.
            DatabaseUnavailable: the database stayed away. psycopg.Error: it refused.
            Whatever the embedding function raises.
        """
        operations = list(ops)
        for one in operations:
            validate_op_namespace(one)
            if isinstance(one, PutOp):
                check_put(one)
        work = self._operations.submit(Unit(self._scope, operations))
        if asyncio.get_running_loop() is self._operations.loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._operations.loop))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `abatch`, for sync code. Raises InvalidStateError on the store's own loop, which waiting would block."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._operations.loop:
            raise asyncio.InvalidStateError(
                "A synchronous method of the store was called on the event loop that has to do the work, which would "
                "wait for itself. Await the async one instead: `await store.aget(...)`, `aput`, `asearch`."
            )
        return asyncio.run_coroutine_threadsafe(self.abatch(ops), self._operations.loop).result()

    async def sweep(self) -> int:
        """Delete what has expired, of all tenants, in small batches; how many items. Others may be at it, too."""
        swept = 0
        while True:
            async with self._operations.db.connection() as conn:
                deleted = (await conn.execute(_SWEEP, {"limit": _SWEEP_BATCH})).rowcount
            swept += deleted
            if deleted < _SWEEP_BATCH:
                return swept
