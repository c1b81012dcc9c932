"""Every statement of the version before this one still means something to the newest schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import pytest

from waystation_db.errors import MigrationError
from waystation_db.migrate import check, migrate, migrations
from waystation_db.sql import parse

pytestmark = pytest.mark.anyio

QUERIES = Path(__file__).parents[1] / "fixtures" / "previous_version" / "queries"
_PARAMETER = re.compile(r"%(?:\((\w+)\)s|%)")

# What Postgres says when a statement names what is not there, or not so any more.
GONE = (
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.AmbiguousFunction,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.SyntaxError,
)


def _statements() -> Iterator[tuple[str, str]]:
    for source in sorted(QUERIES.glob("*.sql")):
        for name, statement in parse(source.read_text(), source.name).items():
            yield f"{source.stem}.{name}", statement


def numbered(statement: str) -> str:
    """The statement with `$1` for its first parameter, as Postgres prepares it."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match[1]
        return "%" if name is None else f"${names.setdefault(name, len(names) + 1)}"

    return _PARAMETER.sub(number, statement)


async def _gone(conn: psycopg.AsyncConnection, statement: str) -> str | None:
    """Why the statement cannot be understood; None when it can."""
    if not statement.lstrip().lower().startswith(("select", "with", "insert", "update", "delete", "values")):
        return None  # `set`, `listen`, `create`: nothing to prepare
    try:
        async with conn.transaction(force_rollback=True):
            await conn.execute(cast(LiteralString, f"prepare one as {numbered(statement)}"))
    except GONE as error:
        return str(error).splitlines()[0]
    except psycopg.errors.IndeterminateDatatype:
        return None  # clients send the type; names were resolved by then
    finally:
        await conn.execute("deallocate all")
    return None


async def _not_understood(uri: str) -> dict[str, str]:
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as conn:
        return {name: reason for name, text in _statements() if (reason := await _gone(conn, text))}


async def test_statements_of_the_version_before_are_understood(empty_database_uri: str) -> None:
    names = (QUERIES.parent / "migrations.txt").read_text().split()
    await migrate(empty_database_uri, known=[one for one in migrations() if one.name in names])
    # Some are parts of statements, which nobody understands alone.
    parts = await _not_understood(empty_database_uri)
    assert len(parts) < 25
    assert set(await migrate(empty_database_uri)) == {one.name for one in migrations()} - set(names)
    assert await _not_understood(empty_database_uri) == parts


async def test_the_version_before_starts_on_the_newest_schema_until_post_files_ran(empty_database_uri: str) -> None:
    names = (QUERIES.parent / "migrations.txt").read_text().split()
    known = [one for one in migrations() if one.name in names]
    assert len(known) == len(names), "a migration that was released has gone"
    await migrate(empty_database_uri, known=known)
    await migrate(empty_database_uri, phase="pre")
    await check(empty_database_uri, known=known)
    await check(empty_database_uri)
    if await migrate(empty_database_uri, phase="post"):
        with pytest.raises(MigrationError, match=r"newer version .*\.post"):
            await check(empty_database_uri, known=known)


async def test_a_column_that_went_away_is_noticed(database_uri: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_uri, autocommit=True) as conn:
        await conn.execute("alter table run drop column resumable cascade")
        found = [name for name, text in _statements() if await _gone(conn, text)]
    assert "runs.create_on_idle_thread" in found
