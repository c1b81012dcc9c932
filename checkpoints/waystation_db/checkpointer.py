"""The saver that graphs run with: LangGraph's tables and behaviour, other costs.

    graph of run A ─▶ view of A ─┐                         ┌─ one statement: fences of A and B,
    graph of run B ─▶ view of B ─┼─▶ group commit ─▶ batch ┤  rows of A, B and the API, commit
    API, update_state ───────────┘                         └─ answers: which fences held

A put returns when its transaction is committed. There is no lock and no thread in between, a connection is held for
one statement, and nothing relies on the session. What is read and written about whole threads is in
`checkpoint_threads.py`, what a row looks like in `checkpoint_rows.py`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import BasePostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, TupleRow, dict_row

from waystation_db import checkpoint_clock
from waystation_db import checkpoint_threads as threads
from waystation_db.checkpoint_chain import PutChain
from waystation_db.checkpoint_rows import Fence, Put, checkpoint_put, write_rows
from waystation_db.checkpoint_sealing import open_row, open_sends, private_members, sealed
from waystation_db.checkpoint_tuples import checkpoint_tuple, is_before_v4
from waystation_db.checkpoint_write import put_batch
from waystation_db.cipher import Cipher
from waystation_db.errors import DatabaseError, Fenced
from waystation_db.group_commit import GroupCommit
from waystation_db.pool import Database
from waystation_db.retrying import is_passing, until_done
from waystation_db.rows import RunKey
from waystation_db.serde import CheckpointSerde
from waystation_db.sql import load
from waystation_db.tenants import DEFAULT_TENANT, ThreadScope

_SELECT = load("checkpoints")["select_checkpoints"]

_THIS = "where thread_id = %s and checkpoint_ns = %s and checkpoint_id = %s"
_LATEST = "where thread_id = %s and checkpoint_ns = %s order by checkpoint_id desc limit 1"

# Rolled-back runs whose late writes are refused here already; after their end Postgres refuses them.
_REMEMBERED_RUNS = 10_000

T = TypeVar("T")


class PostgresCheckpointer(AsyncPostgresSaver):
    """A saver for all graphs of one event loop; `for_run` gives the fenced view that one run's graph works with.

    Writes wait out a database that is away for `retry_s` seconds, reads too; then DatabaseUnavailable is raised.
    `cipher` is the database's own where none is given.
    """

    SELECT_SQL = _SELECT + " "

    def __init__(
        self,
        db: Database,
        *,
        serde: SerializerProtocol | None = None,
        cipher: Cipher | None = None,
        retry_s: float = 30.0,
    ) -> None:
        # Not AsyncPostgresSaver's own: it wants the connection that this one takes from the pool each time.
        BasePostgresSaver.__init__(self, serde=serde or CheckpointSerde())
        self.pipe = None
        self.loop = asyncio.get_running_loop()
        self._db = db
        self._cipher = cipher or db.cipher
        # A cipher may take its time: what a view puts is written in the order in which it was put all the same.
        self._sealing = asyncio.Lock()
        self._retry_s = retry_s
        self._fence: Fence | None = None
        self._scope = ThreadScope(DEFAULT_TENANT)
        self._begins_thread = False
        self._chain: PutChain | None = None
        # Ids of checkpoints that this view's run loaded and another run had put.
        self._elsewhere: set[str] = set()
        self._first_step: int | None = None
        self._last_step = -1
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._commits = GroupCommit(self._put_batch, retry_s=retry_s, bytes_of=Put.size_bytes)

    def for_run(
        self, key: RunKey, attempt: int, *, begins_thread: bool = False, in_background: bool = False
    ) -> PostgresCheckpointer:
        """Return the view for one attempt of a run: everything it writes is refused with Fenced, by Postgres, unless
        the run is running in this very attempt. Its checkpoints carry the run's id. Costs next to nothing.

        `begins_thread`: whoever claimed the run saw that the thread has no state, so that none is looked for at first.
        `in_background`: puts return before they are committed, for runs whose steps do not wait for their checkpoints;
        `settled` tells when all are. A put after one that failed is not written; it raises what that one did.
        """
        view = object.__new__(type(self))
        view.__dict__.update(
            self.__dict__,
            _fence=Fence(key, attempt),
            _scope=self._scope if key.tenant_id == DEFAULT_TENANT else ThreadScope(key.tenant_id),
            _elsewhere=set(),
            _sealing=asyncio.Lock() if self._cipher else self._sealing,
            _begins_thread=begins_thread,
            _first_step=0 if begins_thread else None,
            _last_step=-1,
            _chain=PutChain() if in_background else None,
        )
        return view

    def for_tenant(self, tenant_id: str) -> PostgresCheckpointer:
        """Return the view in which thread ids are those of a tenant; itself for the default one."""
        if tenant_id == DEFAULT_TENANT:
            return self
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _scope=ThreadScope(tenant_id))
        return view

    @property
    def supersteps(self) -> int:
        """How many supersteps of the outermost graph this view's checkpoints tell of."""
        return 0 if self._first_step is None else max(0, self._last_step - self._first_step)

    async def at_rest(self) -> None:
        """Wait until no put of this view is under way, whatever came of it."""
        if self._chain:
            await self._chain.at_rest()

    async def settled(self) -> None:
        """Wait until every put of this view is committed. Raises as `aput` does."""
        if self._chain:
            await self._chain.at_rest()
            self._chain.check()

    @property
    def is_fenced_off(self) -> bool:
        """Whether something that this view put in the background was refused with Fenced."""
        return self._chain is not None and isinstance(self._chain.error, Fenced)

    def within(self, conn: AsyncConnection[TupleRow]) -> PostgresCheckpointer:
        """Return the view that reads and writes in the open transaction of `conn`, and nowhere else: what it puts is
        committed or rolled back by whoever owns the transaction. It does not wait out a database that is away."""
        view = object.__new__(_Within)
        view.__dict__.update(self.__dict__, _db=_OneConnection(conn))
        return view

    async def aclose(self) -> None:
        """Wait until everything that was put is committed or has failed. No put is taken afterwards."""
        await self._commits.aclose()

    def allow_types_of(self, graph: Any) -> None:
        """Have the types of a compiled graph's state schemas loaded as they were. Call it before the graph is used."""
        if isinstance(self.serde, CheckpointSerde):
            self.serde.allow_graph(graph)

    def with_allowlist(self, extra_allowlist: Any) -> Self:
        """List types for loading (LangGraph's strict mode does for every graph); they count for all of the process."""
        if isinstance(self.serde, CheckpointSerde):
            self.serde.allow(extra_allowlist)
        return self

    # -- writing -----------------------------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Commit a checkpoint. Raises Fenced, DatabaseUnavailable, or what keeps its values from being stored."""
        self._begins_thread = False
        if self._fence:
            metadata = cast(CheckpointMetadata, {**metadata, "run_id": self._fence.key.run_id})
        if not config.get("configurable", {}).get("checkpoint_ns"):
            self._count_step(metadata)
        stored = self._scope.inward(config)
        put = checkpoint_put(self.serde, self._fence, stored, checkpoint, metadata, new_versions, chain=self._chain)
        await (self._submit(put) if self._cipher is None else self._submit_sealed(self._cipher, put, config))
        row = put.checkpoint
        assert row is not None
        return _config(self._scope.shown(row.thread_id), row.checkpoint_ns, row.checkpoint_id)

    def _count_step(self, metadata: CheckpointMetadata) -> None:
        # Neither the input is a superstep nor what puts it into the channels, which comes next.
        step = metadata.get("step", 0)
        if self._first_step is None:
            self._first_step = step + 1 if metadata.get("source") == "input" else step - 1
        self._last_step = step

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Commit what a task wrote. Raises as `aput` does."""
        elsewhere = config["configurable"]["checkpoint_id"] in self._elsewhere  # pyright: ignore[reportTypedDictNotRequiredAccess]  # LangGraph sets it
        stored = self._scope.inward(config)
        put = write_rows(
            self.serde, self._fence, stored, writes, task_id, task_path, elsewhere=elsewhere, chain=self._chain
        )
        await (self._submit(put) if self._cipher is None else self._submit_sealed(self._cipher, put, config))

    async def _submit_sealed(self, cipher: Cipher, put: Put, config: RunnableConfig) -> None:
        async with self._sealing:
            ready = await sealed(cipher, put, private=private_members(config))
            if self._chain is not None:
                await self._submit(ready)  # which only queues it
                return
        await self._submit(ready)

    async def _submit(self, put: Put) -> None:
        if put.fence and put.fence.key.run_id in self._revoked:
            raise Fenced(f"run {put.fence.key.run_id} was rolled back")
        chain = self._chain
        if chain is None:
            await self._commits.submit(put)
        else:
            chain.check()
            chain.add(await self._commits.post(put))

    async def _put_batch(self, batch: Sequence[Put]) -> list[DatabaseError | None]:
        gaps = [put.chain.gap() if put.chain else None for put in batch]
        if any(gaps):
            sound = [put for put, gap in zip(batch, gaps, strict=True) if not gap]
            answers = iter(await self._put_batch(sound) if sound else ())
            return [gap or next(answers) for gap in gaps]
        try:
            async with self._db.connection() as conn:
                return await put_batch(conn, batch)
        except Exception as error:
            if len(batch) == 1 and batch[0].chain and not is_passing(error):
                batch[0].chain.fail(error)
            raise

    # -- reading -----------------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the latest. Raises CorruptCheckpoint if it cannot be built."""
        configurable = config["configurable"]  # pyright: ignore[reportTypedDictNotRequiredAccess]  # LangGraph sets it
        if self._has_nothing_of(configurable):
            return None
        arguments = [self._scope.stored(str(configurable["thread_id"])), configurable.get("checkpoint_ns", "")]
        if checkpoint_id := get_checkpoint_id(config):
            where, arguments = _THIS, [*arguments, checkpoint_id]
        else:
            where = _LATEST
        rows = await self._rows(where, arguments)
        if not rows:
            return None
        checkpoint_clock.witness(rows[0]["checkpoint_id"])
        return self._seen(await self._tuple(rows[0]))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first. No connection is held while the caller looks at them."""
        where, arguments = self._search_where(self._scope.inward(config) if config else None, filter, before)
        where += " order by checkpoint_id desc"
        if limit is not None:
            where, arguments = f"{where} limit %s", [*arguments, int(limit)]
        for row in await self._rows(where, arguments):
            yield self._seen(await self._tuple(row))

    async def _tuple(self, row: DictRow) -> CheckpointTuple:
        found = checkpoint_tuple(self.serde, row if self._cipher is None else await open_row(self._cipher, row))
        if self._scope.is_default:
            return found
        parent = None if found.parent_config is None else self._scope.outward(found.parent_config)
        return found._replace(config=self._scope.outward(found.config), parent_config=parent)

    def _has_nothing_of(self, configurable: Mapping[str, Any]) -> bool:
        """Whether this is the first look of a run that begins its thread: there is nothing yet, not even of its own."""
        first, self._begins_thread = self._begins_thread, False
        if not first or self._fence is None:
            return False
        return str(configurable["thread_id"]) == self._fence.key.thread_id

    def _seen(self, found: CheckpointTuple) -> CheckpointTuple:
        if self._fence and found.metadata.get("run_id") != self._fence.key.run_id:
            self._elsewhere.add(found.checkpoint["id"])
        return found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what the ancestors of a checkpoint wrote to delta channels; see LangGraph's base class."""
        work = super().aget_delta_channel_history
        if self._cipher is not None:
            # LangGraph's fast way reads values in SQL; this one asks `aget_tuple` for one ancestor after the other.
            slow: Any = BaseCheckpointSaver.aget_delta_channel_history  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # generic
            return await slow(self, config=config, channels=channels)
        if not self._scope.is_default and not get_checkpoint_id(config):
            # LangGraph's code would ask `aget_tuple` for the latest, which takes the ids that graphs know.
            latest = await self.aget_tuple(config)
            if latest is None:
                return {channel: {"writes": []} for channel in channels}
            config = latest.config
        stored = self._scope.inward(config)
        return await self._again(lambda: work(config=stored, channels=channels))

    async def storage(self, thread_id: str) -> threads.Storage:
        """Count what a thread holds; see `checkpoint_threads.storage`."""
        stored = self._scope.stored(thread_id)
        return await self._with_connection(lambda conn: threads.storage(conn, stored))

    # -- whole threads -----------------------------------------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete every checkpoint of a thread."""
        stored = self._scope.stored(str(thread_id))
        await self._with_connection(lambda conn: threads.delete_thread(conn, stored))

    async def adelete_for_runs(self, run_ids: Sequence[str], *, thread_id: str | None = None) -> None:
        """Delete the checkpoints of runs: the state is then what it was before them. Name the thread if you know it:
        without it every checkpoint in the database is looked at.

        The runs can put nothing more through this saver: what was cancelled may still be on its way, and a node that
        swallowed the cancellation may still be running.
        """
        self._revoked.update(dict.fromkeys(map(str, run_ids)))
        while len(self._revoked) > _REMEMBERED_RUNS:
            self._revoked.popitem(last=False)
        await self._commits.flushed()
        stored = None if thread_id is None else self._scope.stored(thread_id)
        await self._with_connection(lambda conn: threads.delete_for_runs(conn, run_ids, thread_id=stored))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread, in one transaction; what the target has already stays."""
        cipher = self._cipher
        source, target = self._scope.stored(str(source_thread_id)), self._scope.stored(str(target_thread_id))
        await self._with_connection(lambda conn: threads.copy_thread(conn, source, target, cipher=cipher))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all but the latest checkpoint of each namespace (`keep_latest`) or all (`delete`).

        Raises NotImplementedError for `keep_latest` of a thread with a DeltaChannel, whose state needs its history.
        """
        work = super().aprune
        given: Any = thread_ids  # a single text is an error, which LangGraph's code tells
        stored = given if isinstance(given, str) else [self._scope.stored(str(one)) for one in thread_ids]
        await self._again(lambda: work(stored, strategy=strategy))

    # -- for callers in other threads --------------------------------------------------------------------------------
    # LangGraph has these for get_tuple, list, prune and so on, with the same check. Its put and put_writes lack it.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput` for other threads than the loop's."""
        return self._from_thread(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`aput_writes` for other threads than the loop's."""
        self._from_thread(lambda: self.aput_writes(config, writes, task_id, task_path))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs` for other threads than the loop's."""
        self._from_thread(lambda: self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`acopy_thread` for other threads than the loop's."""
        self._from_thread(lambda: self.acopy_thread(source_thread_id, target_thread_id))

    def _from_thread(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            is_own = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_own = False
        if is_own:
            raise asyncio.InvalidStateError("This call would block the loop it waits for: use the method's async form.")
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result()

    # -- the database ------------------------------------------------------------------------------------------------

    async def _rows(self, where: str, arguments: Sequence[Any]) -> list[DictRow]:
        async def work() -> list[DictRow]:
            async with self._cursor() as cursor:
                # `where` is a constant, of ours or of LangGraph's.
                await cursor.execute(cast(LiteralString, self.SELECT_SQL + where), arguments, binary=True)
                rows = await cursor.fetchall()
                await self._adopt_old_sends(cursor, [row for row in rows if is_before_v4(row)])
                return rows

        return await self._again(work)

    async def _adopt_old_sends(self, cursor: AsyncCursor[DictRow], rows: Sequence[DictRow]) -> None:
        """Give checkpoints from before LangGraph 0.5 the sends that it then stored with their parents."""
        for row in rows:
            parent = row["parent_checkpoint_id"]
            await cursor.execute(self.SELECT_PENDING_SENDS_SQL, (row["thread_id"], [parent]))
            if found := await cursor.fetchone():
                values: list[tuple[bytes, bytes, bytes]] = row["channel_values"] or []
                sends = found["sends"]
                if sends and self._cipher is not None:
                    sends = await open_sends(self._cipher, sends)
                self._migrate_pending_sends(sends, row["checkpoint"], values)
                row["channel_values"] = values

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncGenerator[AsyncCursor[DictRow]]:
        # What LangGraph's own code here asks for; it does without pipelines as well.
        async with self._db.connection() as conn, conn.cursor(binary=True, row_factory=dict_row) as cursor:
            yield cursor

    async def _with_connection(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        async def once() -> T:
            async with self._db.connection() as conn:
                return await work(conn)

        return await self._again(once)

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        await self.at_rest()  # a run reads what it has written
        return await until_done(work, retry_s=self._retry_s)


class _Within(PostgresCheckpointer):
    """See `PostgresCheckpointer.within`."""

    async def _submit(self, put: Put) -> None:
        for refusal in await self._put_batch([put]):
            if refusal:
                raise refusal

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        return await work()


class _OneConnection:
    """Stands in for the pool: lends the same connection to one after the other, each with a savepoint of its own."""

    def __init__(self, conn: AsyncConnection[TupleRow]) -> None:
        self._conn = conn
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection[TupleRow]]:
        async with self._turn, self._conn.transaction():
            yield self._conn


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}
