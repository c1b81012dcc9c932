"""Connections to Postgres for one event loop: checked out for a statement or a transaction, given back at once.

Why not psycopg_pool: after an outage it waits twice as long before each new attempt, so the first query after Postgres
is back could wait as long as the outage lasted, and it finds a dead connection only by a round trip or by failing
somebody's query. Here a waiting caller connects itself, every fraction of a second until its deadline, and a
connection that died while idle is noticed by a look at its socket, which costs a microsecond.

Nothing here keeps state in the session, so all of it works behind PgBouncer in transaction mode with `prepare=False`.
"""

from __future__ import annotations

import asyncio
import random
import re
import select
from collections import deque
from time import monotonic
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow

from waystation_db.cipher import Cipher
from waystation_db.errors import DatabaseUnavailable

_IDLE_S = 300.0
_LIFETIME_S = 3600.0
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 0.5
_ROLLBACK_TIMEOUT_S = 5.0
# SQLSTATEs of a server (or a pooler before it) that goes down or is not up.
_LOST = ("08", "57P")
# Dead peers are noticed after some 20 s at most, when no packet says that they are gone. What the URI says wins.
_CONNECT_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}


def normalize_conninfo(conninfo: str, *, application_name: str = "waystation") -> str:
    """Return `conninfo` (a URI or libpq's key=value form) with our timeouts where it names none.

    `postgresql+asyncpg://` and its like, which other libraries use, are read as `postgresql://`. Raises ValueError.
    """
    conninfo = re.sub(r"^postgres(?:ql)?(?:\+\w+)?://", "postgresql://", conninfo.strip())
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        raise ValueError(f"this is not the address of a Postgres database: {str(error).strip()}") from None
    merged: dict[str, Any] = {**_CONNECT_DEFAULTS, "application_name": application_name, **given}
    return make_conninfo(**merged)


class Database:
    """A pool of autocommit connections that belongs to the loop on which it was opened."""

    def __init__(
        self,
        conninfo: str,
        *,
        min_size: int = 1,
        max_size: int = 10,
        name: str = "waystation",
        prepare: bool = True,
        timeout_s: float = 10.0,
    ) -> None:
        """`name` becomes the connections' application_name; `timeout_s` is how long a checkout may wait in all."""
        if not 0 <= min_size <= max_size or max_size < 1:
            raise ValueError(f"a pool cannot have {min_size} to {max_size} connections")
        self.cipher: Cipher | None = None
        """What the values of this database are encrypted with; see `cipher_of`. Set it before the first use."""
        self.conninfo = normalize_conninfo(conninfo, application_name=name)
        self.name = name
        self.max_size = max_size
        self._min_size = min_size
        self._prepare_threshold = 5 if prepare else None
        self._timeout_s = timeout_s
        self._idle: deque[_Slot] = deque()  # the most recently used at the right
        self._waiting: deque[asyncio.Future[_Slot | None]] = deque()
        self._size = 0
        self._is_open = False

    async def open(self) -> Self:
        """Make the first `min_size` connections. Raises DatabaseUnavailable when Postgres does not answer in time."""
        self._is_open = True
        deadline = monotonic() + self._timeout_s
        try:
            for _ in range(self._min_size - self._size):
                self._size += 1
                self._idle.append(await self._connect(deadline))
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back, and waiting callers are refused."""
        self._is_open = False
        while self._waiting:
            _wake(self._waiting.popleft(), None)
        while self._idle:
            await self._discard(self._idle.pop())

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def connection(self, *, timeout_s: float | None = None) -> Checkout:
        """Lend a connection for an `async with` block. It is given back without an open transaction, however it ends.

        Raises DatabaseUnavailable when none could be had in `timeout_s` (the pool's by default), and in place of
        psycopg's error when the connection is lost within the block: what ran last may then have been committed.
        """
        return Checkout(self, self._timeout_s if timeout_s is None else timeout_s)

    @property
    def in_use(self) -> int:
        """How many connections are lent out or being made."""
        return self._size - len(self._idle)

    @property
    def waiting(self) -> int:
        """How many callers wait for a connection."""
        return len(self._waiting)

    async def take(self, timeout_s: float) -> _Slot:
        """For Checkout: a live connection; the caller owes it to `give_back`."""
        deadline = monotonic() + timeout_s
        while self._is_open:
            while self._idle:
                slot = self._idle.pop()
                if slot.is_alive():
                    return slot
                await self._discard(slot)
            if self._size < self.max_size:
                self._size += 1
                return await self._connect(deadline)
            if slot := await self._wait(deadline):
                if slot.is_alive():
                    return slot
                await self._discard(slot)
        raise DatabaseUnavailable(f"the pool {self.name} is closed")

    async def give_back(self, slot: _Slot) -> None:
        """For Checkout: make the connection idle again, or close it when it is of no more use."""
        try:
            reusable = await _is_reusable(slot.conn)
        except BaseException:
            await self._discard(slot)
            raise
        if not reusable or not self._is_open or monotonic() > slot.ends_at:
            await self._discard(slot)
            return
        self._lend_or_keep(slot)
        await self._close_unneeded()

    def _lend_or_keep(self, slot: _Slot) -> None:
        while self._waiting:
            if _wake(self._waiting.popleft(), slot):
                return
        slot.idle_since = monotonic()
        self._idle.append(slot)

    async def _wait(self, deadline: float) -> _Slot | None:
        """Wait for somebody's connection; None says that there may be room to make one."""
        turn: asyncio.Future[_Slot | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                return await turn
        except BaseException as error:
            self._return_turn(turn)
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable(f"all {self.max_size} connections of {self.name} are in use") from None
            raise

    def _return_turn(self, turn: asyncio.Future[_Slot | None]) -> None:
        """Pass on what a caller got in the very moment in which it stopped waiting."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled():
            slot = turn.result()
            if slot is None:
                self._wake_one()
            else:
                self._lend_or_keep(slot)

    async def _connect(self, deadline: float) -> _Slot:
        """Connect, again and again until the deadline; the caller has already counted the connection in `_size`."""
        pause_s = _FIRST_RETRY_S
        try:
            while True:
                try:
                    return _Slot(await self._connect_once(deadline))
                except (psycopg.OperationalError, TimeoutError) as error:
                    if not self._is_open or monotonic() + pause_s > deadline:
                        raise DatabaseUnavailable(f"cannot connect to Postgres: {str(error).strip()}") from error
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, _LAST_RETRY_S)
        except BaseException:
            self._forget_one()
            raise

    async def _connect_once(self, deadline: float) -> AsyncConnection[TupleRow]:
        async with asyncio.timeout(max(0.0, deadline - monotonic())):
            conn = await _Connection.connect(self.conninfo, autocommit=True, prepare_threshold=self._prepare_threshold)
        conn.pool = self
        # A pooler may bring what another session listens for; without a handler psycopg would keep it for ever.
        conn.add_notify_handler(_ignore)
        return conn

    async def _discard(self, slot: _Slot) -> None:
        self._forget_one()
        await slot.conn.close()

    def _forget_one(self) -> None:
        self._size -= 1
        self._wake_one()

    def _wake_one(self) -> None:
        """Tell the first caller that waits that there is room for a connection of its own."""
        while self._waiting:
            if _wake(self._waiting.popleft(), None):
                return

    async def _close_unneeded(self) -> None:
        while len(self._idle) > 1 and self._size > self._min_size and monotonic() - self._idle[0].idle_since > _IDLE_S:
            await self._discard(self._idle.popleft())


class _Connection(AsyncConnection[TupleRow]):
    """A connection that knows whose it is."""

    pool: Database | None = None


def cipher_of(conn: AsyncConnection[TupleRow]) -> Cipher | None:
    """What is read and written through this connection has to pass through; None when encryption is off.

    Statements that store or read content ask it themselves, so that no caller can forget to.
    """
    pool: Database | None = getattr(conn, "pool", None)
    return None if pool is None else pool.cipher


class Checkout:
    """The block during which a connection is lent out; made by `Database.connection`."""

    __slots__ = ("_database", "_slot", "_timeout_s")

    def __init__(self, database: Database, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s

    async def __aenter__(self) -> AsyncConnection[TupleRow]:
        self._slot = await self._database.take(self._timeout_s)
        return self._slot.conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = isinstance(error, psycopg.OperationalError) and (
            self._slot.conn.broken or (error.sqlstate or "").startswith(_LOST)
        )
        await self._database.give_back(self._slot)
        if lost:
            raise DatabaseUnavailable(f"the connection to Postgres was lost: {str(error).strip()}") from error


class _Slot:
    """A connection with what the pool knows of it."""

    __slots__ = ("_socket", "conn", "ends_at", "idle_since")

    def __init__(self, conn: AsyncConnection[TupleRow]) -> None:
        self.conn = conn
        self.idle_since = monotonic()
        # Spread, so that connections made together do not end together.
        self.ends_at = self.idle_since + _LIFETIME_S * random.uniform(0.8, 1.0)
        self._socket = select.poll()
        self._socket.register(conn.pgconn.socket, select.POLLIN)

    def is_alive(self) -> bool:
        """Whether the server has not hung up, as far as this side has been told. No round trip."""
        pgconn = self.conn.pgconn
        try:
            while pgconn.status == ConnStatus.OK:
                if not self._socket.poll(0):
                    return True
                pgconn.consume_input()
        except psycopg.OperationalError:
            pass
        return False


async def _is_reusable(conn: AsyncConnection[TupleRow]) -> bool:
    """Leave no transaction open; False when that is impossible or the connection is in the middle of something."""
    pgconn = conn.pgconn
    status = pgconn.transaction_status
    if pgconn.pipeline_status != PipelineStatus.OFF:
        return False
    if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        try:
            async with asyncio.timeout(_ROLLBACK_TIMEOUT_S):
                await conn.rollback()
        except (psycopg.Error, TimeoutError):
            return False
        status = pgconn.transaction_status
    return status == TransactionStatus.IDLE


def _ignore(_notify: psycopg.Notify) -> None: ...


def _wake(turn: asyncio.Future[_Slot | None], slot: _Slot | None) -> bool:
    if turn.done():
        return False
    turn.set_result(slot)
    return True
