"""The long-term store that graphs get: LangGraph's `AsyncPostgresStore` on our pool.

    aget, aput, asearch … of all graphs ─▶ queue ─▶ what waits goes together ─▶ LangGraph's statements, one pipeline
                                                    a batch that fails ─▶ each of its operations alone

What differs: an operation that Postgres refuses fails alone and not with whatever was in its batch, a slow batch does
not hold up the next, an outage is waited out, and texts are embedded before a connection is taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, cast

import psycopg
from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, Op, PutOp, Result, SearchOp, TTLConfig
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from waystation_db.pool import Database
from waystation_db.retrying import until_done
from waystation_db.sql import load

_sql = load("store")
_HAS_VECTORS, _LOCK_SETUP = _sql["has_vectors"], _sql["lock_setup"]

# Batches under way at once: more would only take connections from the checkpointer.
_LANES = 4

logger = logging.getLogger(__name__)

_Waiting = tuple[asyncio.Future[Result], Op]


@asynccontextmanager
async def open_store(
    db: Database, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None, retry_s: float = 30.0
) -> AsyncGenerator[PostgresStore]:
    """Open the store on the running loop, and make the vector index if there is to be one.

    Without pgvector on the server, or the right to install it, the store works without `index` and says so in the log.
    Raises DatabaseUnavailable.
    """
    store = PostgresStore(db, index=await _possible_index(db, index), ttl=ttl, retry_s=retry_s)
    try:
        if store.index_config and not await _vectors_are_set_up(db, store):
            await store.aclose()
            store = PostgresStore(db, index=None, ttl=ttl, retry_s=retry_s)
        yield store
    finally:
        await store.aclose()


class PostgresStore(AsyncPostgresStore):
    """The store of one event loop; see `open_store`. Operations wait out a database that is away for `retry_s`."""

    _task: asyncio.Task[None] | None
    _aqueue: asyncio.Queue[_Waiting]

    def __init__(self, db: Database, *, index: IndexConfig | None, ttl: TTLConfig | None, retry_s: float) -> None:
        self._db = db
        self._retry_s = retry_s
        self._lanes = asyncio.Semaphore(_LANES)
        self._under_way: set[asyncio.Task[None]] = set()
        # LangGraph uses the connection only in `_cursor`, which is ours.
        super().__init__(cast(Any, db), index=cast(Any, index), ttl=ttl)
        self._ahead = _EmbeddedAhead(self.embeddings) if self.embeddings else None
        self.embeddings = self._ahead

    async def aclose(self) -> None:
        """Wait for the operations under way; those not begun are cancelled."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._under_way:
            await asyncio.wait(self._under_way)
        while not self._aqueue.empty():
            self._aqueue.get_nowait()[0].cancel()

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out the operations in one transaction. Raises DatabaseUnavailable, or psycopg.Error for all."""
        operations = list(ops)
        await self._embed_ahead(operations)
        work = super().abatch
        return await until_done(lambda: work(operations), retry_s=self._retry_s)

    def _ensure_task(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            batch: list[_Waiting] = [await self._aqueue.get()]
            while not self._aqueue.empty():
                batch.append(self._aqueue.get_nowait())
            await self._lanes.acquire()
            task = self._loop.create_task(self._settle(batch))
            self._under_way.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._lanes.release()

    async def _settle(self, batch: list[_Waiting]) -> None:
        waiting = [(future, operation) for future, operation in batch if not future.done()]
        try:
            results = await self.abatch([operation for _, operation in waiting])
        except Exception as error:
            if len(waiting) == 1 and not waiting[0][0].done():
                waiting[0][0].set_exception(error)
            elif len(waiting) > 1:
                for one in waiting:
                    await self._settle([one])
            return
        for (future, _), result in zip(waiting, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _embed_ahead(self, operations: Sequence[Op]) -> None:
        if self._ahead is None:
            return
        puts = [(index, one) for index, one in enumerate(operations) if isinstance(one, PutOp)]
        searches = [(index, one) for index, one in enumerate(operations) if isinstance(one, SearchOp)]
        wanted = self._prepare_batch_PUT_queries(puts)[1]  # pyright: ignore[reportUnknownMemberType]  # half typed
        queries = self._prepare_batch_search_queries(searches)[1]
        texts = [row[-1] for row in (wanted[1] if wanted else ())] + [text for _, text in queries]
        await self._ahead.prepare(texts)

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncGenerator[AsyncCursor[DictRow]]:
        async with self._db.connection() as conn:
            if not pipeline:
                async with conn.cursor(binary=True, row_factory=dict_row) as cursor:
                    yield cursor
                return
            async with conn.pipeline(), conn.cursor(binary=True, row_factory=dict_row) as cursor:
                yield cursor


class _EmbeddedAhead(Embeddings):
    """Gives LangGraph's code, which asks while it holds a connection, the vectors that were made before."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self._ready: ContextVar[dict[str, list[float]]] = ContextVar("ready")

    async def prepare(self, texts: Sequence[str]) -> None:
        """Embed for the `aembed_documents` that follow in this task."""
        distinct = list(dict.fromkeys(texts))
        vectors = await self._embeddings.aembed_documents(distinct) if distinct else []
        self._ready.set(dict(zip(distinct, vectors, strict=True)))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        ready = self._ready.get()
        return [ready[text] for text in texts]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embeddings.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._embeddings.embed_query(text)


async def _possible_index(db: Database, index: IndexConfig | None) -> IndexConfig | None:
    if index is None:
        return None
    async with db.connection() as conn:
        if await (await conn.execute(_HAS_VECTORS)).fetchone() == (True,):
            return index
    logger.warning("store.index is configured, but this Postgres has no pgvector: the store searches without vectors")
    return None


async def _vectors_are_set_up(db: Database, store: PostgresStore) -> bool:
    try:
        while not await _set_up(db, store):  # noqa: ASYNC110  # another process is at it
            await asyncio.sleep(0.1)
    except psycopg.Error as error:
        logger.warning(
            "store.index is configured, but its tables cannot be made: the store searches without vectors",
            extra={"error": str(error).strip()},
        )
        return False
    return True


async def _set_up(db: Database, store: PostgresStore) -> bool:
    """Make the vector index, unless another process is at it."""
    async with db.connection() as lock, lock.transaction():
        if await (await lock.execute(_LOCK_SETUP)).fetchone() != (True,):
            return False
        await store.setup()
        return True
