"""Brings the schema to where this version needs it: numbered SQL files, forward only, and LangGraph's own migrations.

`NNNN_name.pre.sql` is safe while the previous version still serves, `NNNN_name.post.sql` only after it is gone. A file
that begins with `-- no-transaction` runs statement by statement, each ended by a `;` at the end of a line; it must
bear being run again after a failure in its middle. Two connections take part, so that this works behind PgBouncer
in transaction mode:

    first    begin; try the advisory lock, again until it is ours ......................... commit (unlocks)
    second                        LangGraph's setup; begin; file; record; commit; begin; ...
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from time import monotonic
from typing import Any, Literal, LiteralString, cast

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection

from waystation_db.errors import DatabaseUnavailable, MigrationError
from waystation_db.pool import normalize_conninfo
from waystation_db.sql import load

Phase = Literal["pre", "post"]

_sql = load("migrate")
_TRY_LOCK, _KEEP_LOCK, _STILL_LOCKED = _sql["try_lock"], _sql["keep_lock"], _sql["still_locked"]
EXISTING_TABLES, _CREATE_TABLE = _sql["existing_tables"], _sql["create_table"]
_APPLIED, _RECORD, _ABSENT, _PRESENT = _sql["applied"], _sql["record"], _sql["absent"], _sql["present"]
_LOCK_TIMEOUT, _LOCK_TIMEOUT_ON, _LOCK_TIMEOUT_OFF = _sql.lock_timeout, _sql.lock_timeout_on, _sql.lock_timeout_off
_CHECKPOINT_VERSION, _STORE_VERSION = _sql["checkpoint_version"], _sql["store_version"]

_FILE_NAME = re.compile(r"(?P<name>\d{4}_[a-z0-9_]+\.(?P<phase>pre|post))\.sql")
_MADE = re.compile(r"^create table (?:if not exists )?(\w+)", re.MULTILINE)
_DROPPED = re.compile(r"^drop table (?:if exists )?(\w+)", re.MULTILINE)
_NO_TRANSACTION = "-- no-transaction"
_COMMAND = "waystation migrate"
_CHECKPOINTS, _STORE = "langgraph-checkpoints", "langgraph-store"
_CHECKPOINT_TABLES, _STORE_TABLES = ["checkpoints", "checkpoint_blobs", "checkpoint_writes"], ["store"]
_LOCK_ATTEMPTS = 60
_LOCK_PAUSE_S = 1.0
_Conn = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of migrations/: its name without `.sql`, its phase, its text."""

    name: str
    phase: Phase
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not self.text.startswith(_NO_TRANSACTION)

    def statements(self) -> list[str]:
        """The statements of a file without a transaction; several sent at once would get one from Postgres."""
        return [part for part in re.split(r";[ \t]*$", self.text, flags=re.MULTILINE) if _is_statement(part)]


async def migrate(
    conninfo: str, *, phase: Phase | None = None, known: Sequence[Migration] | None = None, timeout_s: float = 600
) -> list[str]:
    """Apply what is pending, of both phases or of one, and return the names; concurrent callers wait for the first.

    `known` are the files, those of this package by default. Raises MigrationError when a file fails (what ran before
    it stays applied), when an applied file was edited, when the schema belongs to a newer version or the lock is not
    had in `timeout_s`; DatabaseUnavailable without a server.
    """
    async with connected(conninfo) as conn:
        known = migrations() if known is None else known
        if not await pending_steps(conn, phase, known):
            return []
        async with connected(conninfo) as lock, _locked(lock, timeout_s):
            return [await _apply(conn, lock, step) for step in await pending_steps(conn, phase, known)]


async def pending(conninfo: str, *, phase: Phase | None = None, known: Sequence[Migration] | None = None) -> list[str]:
    """Return the names of what `migrate` would apply, changing nothing. Raises as `migrate` does."""
    async with connected(conninfo) as conn:
        return [name_of(step) for step in await pending_steps(conn, phase, migrations() if known is None else known)]


async def check(conninfo: str, *, known: Sequence[Migration] | None = None) -> None:
    """Raise MigrationError, with the command to run, when this version cannot serve from the schema as it is.

    Files of the `post` phase may still be pending: they are for after the rollout.
    """
    known = migrations() if known is None else known
    async with connected(conninfo) as conn:
        steps = await pending_steps(conn, None, known)
        missing = [name_of(one) for one in steps if not isinstance(one, Migration) or one.phase == "pre"]
        if missing:
            raise MigrationError(
                f"The database lacks {', '.join(missing)}. Run `{_COMMAND}` before starting the server."
            )
        made = tables_of([one for one in known if one not in steps])
        absent = [name for (name,) in await (await conn.execute(_ABSENT, {"names": made})).fetchall()]
    if absent:
        raise MigrationError(
            f"The schema is broken: its migrations are recorded as applied, but there is no {', '.join(absent)}. "
            "Restore a backup, or correct DATABASE_URI where it names another database or schema (search_path)."
        )


async def applied(conn: _Conn) -> tuple[dict[str, str], int, int]:
    """Names and checksums of what was applied, and how far LangGraph's checkpoints and store have come."""
    names = dict(await (await conn.execute(_APPLIED)).fetchall())
    return names, int((await _row(conn, _CHECKPOINT_VERSION))[0]), int((await _row(conn, _STORE_VERSION))[0])


def tables_of(known: Sequence[Migration]) -> list[str]:
    """The tables that these files make and do not drop again."""
    text = "\n".join(one.text for one in known)
    made, dropped = (dict.fromkeys(pattern.findall(text)) for pattern in (_MADE, _DROPPED))
    return [name for name in made if name not in dropped]


def migrations() -> list[Migration]:
    """Return the files of migrations/ in the order in which they are applied. Raises ValueError on a wrong name."""
    found: list[Migration] = []
    for source in files("waystation_db").joinpath("migrations").iterdir():
        if not source.name.endswith(".sql"):
            continue
        if not (match := _FILE_NAME.fullmatch(source.name)):
            raise ValueError(f"migrations/{source.name} is not called NNNN_name.pre.sql or NNNN_name.post.sql")
        phase = cast(Phase, match["phase"])  # the pattern allows only these two
        found.append(Migration(match["name"], phase, source.read_text(encoding="utf-8")))
    # By number, and `pre` before `post` of one number.
    return sorted(found, key=lambda one: (one.name[:4], one.phase == "post", one.name))


Step = Migration | Literal["langgraph-checkpoints", "langgraph-store"]


def name_of(step: Step) -> str:
    """The name of a step, as `migrate` returns it."""
    return step.name if isinstance(step, Migration) else step


async def pending_steps(conn: _Conn, phase: Phase | None, known: Sequence[Migration]) -> list[Step]:
    """What is not applied yet, in the order of application. Raises MigrationError on a foreign or edited schema."""
    await _refuse_strangers(conn, known)
    ours, checkpoints, store = await _row(conn, EXISTING_TABLES)
    steps: list[Step] = []
    if phase != "post":
        if not checkpoints or (await _row(conn, _CHECKPOINT_VERSION))[0] < len(AsyncPostgresSaver.MIGRATIONS) - 1:
            steps.append(_CHECKPOINTS)
        if not store or (await _row(conn, _STORE_VERSION))[0] < len(AsyncPostgresStore.MIGRATIONS) - 1:
            steps.append(_STORE)
    applied = dict(await (await conn.execute(_APPLIED)).fetchall()) if ours else {}
    _refuse_foreign(applied, known)
    steps += [one for one in known if one.name not in applied and phase in (None, one.phase)]
    return steps


async def _refuse_strangers(conn: _Conn, known: Sequence[Migration]) -> None:
    """Somebody else's tables that have our names are found before anything is written beside them."""
    names = [tables_of(known), _CHECKPOINT_TABLES, _STORE_TABLES]
    wanted = {"names": [name for some in names for name in some]}
    found = {name for (name,) in await (await conn.execute(_PRESENT, wanted)).fetchall()}
    # Looked at afterwards: whoever migrates at this moment makes the record before the tables.
    recorded = await _row(conn, EXISTING_TABLES)
    strange = [name for here, some in zip(recorded, names, strict=True) if not here for name in some if name in found]
    if strange:
        raise MigrationError(
            f"The database has tables that Waystation needs and did not make: {', '.join(strange)}. Nothing was "
            "changed. Give it a database of its own in DATABASE_URI, or a schema of its own there (search_path)."
        )


def _refuse_foreign(applied: dict[str, str], known: Sequence[Migration]) -> None:
    """A newer version's `pre` files are made to be served by this one; after its `post` files this one is too old."""
    newer = sorted(applied.keys() - {one.name for one in known})
    if any(name.endswith(".post") for name in newer):
        raise MigrationError(
            f"The database was migrated by a newer version of Waystation ({', '.join(newer)}). "
            "Run that version, or restore the backup made before the migration."
        )
    for one in known:
        if applied.get(one.name, one.checksum) != one.checksum:
            raise MigrationError(
                f"migrations/{one.name}.sql was changed after it had been applied to this database. Restore the file "
                "and put the change into a new migration."
            )


async def _apply(conn: _Conn, lock: _Conn, step: Step) -> str:
    try:
        await lock.execute(_STILL_LOCKED)
        match step:
            case "langgraph-checkpoints":
                await AsyncPostgresSaver(conn).setup()
            case "langgraph-store":
                await AsyncPostgresStore(conn).setup()
            case Migration():
                await conn.execute(_CREATE_TABLE)
                await (_apply_whole(conn, step) if step.in_transaction else _apply_by_statement(conn, step))
    except psycopg.Error as error:
        raise MigrationError(
            f"The migration {name_of(step)} failed: {str(error).strip()}. What ran before it stays applied; mend the "
            f"cause and run `{_COMMAND}` again."
        ) from error
    return name_of(step)


async def _apply_whole(conn: _Conn, step: Migration) -> None:
    async def whole() -> None:
        async with conn.transaction():
            await conn.execute(_LOCK_TIMEOUT)
            await conn.execute(_trusted(step.text))
            await conn.execute(_RECORD, {"name": step.name, "checksum": step.checksum})

    await _in_short_turns(whole)


async def _apply_by_statement(conn: _Conn, step: Migration) -> None:
    for statement in step.statements():

        async def one(statement: str = statement) -> None:
            await conn.execute(_trusted(statement))

        # What works concurrently lets everybody pass while it waits; cut off, it would leave half an index.
        if "concurrently" in statement.lower():
            await one()
            continue
        await conn.execute(_LOCK_TIMEOUT_ON)
        try:
            await _in_short_turns(one)
        finally:
            await conn.execute(_LOCK_TIMEOUT_OFF)
    await conn.execute(_RECORD, {"name": step.name, "checksum": step.checksum})


async def _in_short_turns(work: Callable[[], Awaitable[None]]) -> None:
    """Whoever waits for a lock behind a long transaction has everybody else wait behind him: for moments only."""
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        try:
            return await work()
        except psycopg.errors.LockNotAvailable:
            if attempt == _LOCK_ATTEMPTS:
                raise
        await asyncio.sleep(_LOCK_PAUSE_S)
    return None


@asynccontextmanager
async def _locked(lock: _Conn, timeout_s: float) -> AsyncGenerator[None]:
    """Hold the migration lock in a transaction of `lock`."""
    deadline = monotonic() + timeout_s
    while True:
        async with lock.transaction():
            if (await _row(lock, _TRY_LOCK))[0]:
                await lock.execute(_KEEP_LOCK)
                yield
                return
        if monotonic() > deadline:
            raise MigrationError(f"Another process has been migrating this database for more than {timeout_s:.0f} s.")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def connected(conninfo: str) -> AsyncGenerator[_Conn]:
    """A connection for migrations. Raises DatabaseUnavailable without a server."""
    address = normalize_conninfo(conninfo, application_name="waystation-migrate")
    try:
        # Nothing is prepared, for the sake of PgBouncer.
        conn = await AsyncConnection.connect(address, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"cannot connect to Postgres: {str(error).strip()}") from error
    async with conn:
        yield conn


async def _row(conn: _Conn, statement: LiteralString) -> tuple[Any, ...]:
    row = await (await conn.execute(statement)).fetchone()
    if row is None:
        raise MigrationError("Postgres gave no row where there must be one")
    return row


def _is_statement(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("--") for line in text.splitlines())


def _trusted(text: str) -> LiteralString:
    return cast(LiteralString, text)  # a file of our own package, never data
