"""The resources of an API process without a worker, on a test's database and a test's project."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from waystation.catalog import read_project
from waystation.config import Settings
from waystation.process import open_process
from waystation.services import Services

BASIC = Path(__file__).parent / "contract" / "fixtures" / "basic"
"""The project that the wire contract was recorded with."""


@asynccontextmanager
async def api_services(
    database_uri: str, *, project: Path = BASIC, settings: Settings | None = None
) -> AsyncGenerator[Services]:
    """Services with the project's graphs loaded. Runs are created and never executed."""
    settings = settings or Settings(database_uri=database_uri, n_jobs_per_worker=0)
    async with open_process(settings, read_project(project), alone=True) as process:
        yield process.services
