"""Fixtures for all tests: a database and a Valkey of one's own for each test, and servers of one's own to maltreat.

WAYSTATION_TEST_BINDIR=/usr/lib/postgresql/15/bin    runs them on that Postgres instead of the embedded wheel's
"""

from __future__ import annotations

import asyncio
import gc
import os
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from services import FAST, Valkey, once_per_run, postgres_bindir, private_postgres
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.migrate import migrate
from waystation_db.pool import Database

_TEMPLATE = "waystation_template"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What imports and thousands of collected tests are made of is never garbage: nobody need look through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def embedded_postgres(run_dir: Path) -> Iterator[EmbeddedPostgres]:
    """The server that all workers of the run share. Do not stop it."""
    server = EmbeddedPostgres.start(run_dir / "postgres", bindir=postgres_bindir(), settings=FAST)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def template(embedded_postgres: EmbeddedPostgres, run_dir: Path) -> str:
    """The name of the migrated database from which those of the tests are made."""
    with once_per_run(run_dir, "template") as first:
        if first:
            _on_server(embedded_postgres.conninfo, sql.SQL("create database {}").format(sql.Identifier(_TEMPLATE)))
            asyncio.run(migrate(embedded_postgres.conninfo_of(_TEMPLATE)))
    return _TEMPLATE


def _on_server(conninfo: str, statement: sql.Composed) -> None:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(statement)


@pytest.fixture(scope="session")
def postgres(embedded_postgres: EmbeddedPostgres) -> str:
    """The address of a real Postgres server, shared by the run."""
    return embedded_postgres.conninfo


def _create_statement(server: EmbeddedPostgres) -> sql.SQL:
    """Copying files is the only way of Postgres 14, and on later ones many times faster than the default."""
    with psycopg.connect(server.conninfo) as conn:
        chooses = conn.info.server_version >= 15_00_00
    return sql.SQL("create database {} template {} strategy file_copy" if chooses else "create database {} template {}")


def _new_database(server: EmbeddedPostgres, template: str) -> Generator[str]:
    name = f"test_{uuid.uuid4().hex}"
    _on_server(server.conninfo, _create_statement(server).format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield server.conninfo_of(name)
    finally:
        _on_server(server.conninfo, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database_uri(embedded_postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The address of a fresh, migrated database of this test alone."""
    yield from _new_database(embedded_postgres, template)


@pytest.fixture(scope="session")
def make_database(embedded_postgres: EmbeddedPostgres, template: str) -> Iterator[Callable[[], str]]:
    """Make migrated databases that live as long as this worker: for servers that serve several tests."""
    with ExitStack() as made:
        yield lambda: made.enter_context(contextmanager(_new_database)(embedded_postgres, template))


@pytest.fixture
def empty_database_uri(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """The address of a fresh database without any table."""
    yield from _new_database(embedded_postgres, "template0")


@pytest.fixture
async def db(database_uri: str) -> AsyncIterator[Database]:
    """An open pool on this test's database."""
    async with Database(database_uri, name="test", max_size=10) as database:
        yield database


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """This worker's Valkey. Use `redis_url` for a clean one, `make_redis` for one to break."""
    server = Valkey.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The address of a real Redis server that is empty and this test's alone."""
    valkey.flush()
    return valkey.url


@pytest.fixture
def make_postgres(tmp_path: Path) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Make Postgres servers of this test's own: `halt`, `revive` and `restart_immediate` them at will."""
    made: list[EmbeddedPostgres] = []

    def make() -> EmbeddedPostgres:
        made.append(private_postgres(tmp_path / f"postgres-{len(made)}"))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def make_redis() -> Iterator[Callable[[], Valkey]]:
    """Make Valkey servers of this test's own: `kill`, `resume`, `pause`, `unpause` and `flush` them at will."""
    made: list[Valkey] = []

    def make() -> Valkey:
        made.append(Valkey.start())
        return made[-1]

    yield make
    for server in made:
        server.stop()
