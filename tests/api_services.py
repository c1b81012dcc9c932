"""The resources of an API process without a worker, on a test's database and a test's project."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from langgraph.store.memory import InMemoryStore

from waystation.catalog import Catalog, read_project
from waystation.config import Settings
from waystation.events import MemoryStore, in_process
from waystation.services import GraphHost, GraphSide, Services
from waystation.services.wakeups import Wakeups
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.pool import Database

BASIC = Path(__file__).parent / "contract" / "fixtures" / "basic"
"""The project that the wire contract was recorded with."""


@asynccontextmanager
async def api_services(
    database_uri: str, *, project: Path = BASIC, settings: Settings | None = None
) -> AsyncGenerator[Services]:
    """Services with the project's graphs loaded. Runs are created and never executed."""
    settings = settings or Settings(database_uri=database_uri, n_jobs_per_worker=0)
    read = read_project(project)

    @asynccontextmanager
    async def graph_side() -> AsyncGenerator[GraphSide]:
        store = InMemoryStore()
        async with Database(database_uri, name="graphs", max_size=4) as db:
            catalog = await Catalog.load(read, store=store)
            yield GraphSide(catalog, PostgresCheckpointer(db), store, db)

    async with Database(database_uri, name="api", max_size=8) as db, GraphHost.run(graph_side) as host:
        log = in_process(db, MemoryStore(), poll_s=settings.poll_s)
        try:
            yield Services(settings, read, db, host, log, Wakeups())
        finally:
            await log.close()
