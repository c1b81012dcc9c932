"""The project's own Postgres in `.waystation/postgres`, kept running as long as a server of the project runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from waystation.cli.project_lock import project_folder
from waystation_db.embedded import EmbeddedPostgres
from waystation_db.errors import EmbeddedError

_LOOK_S = 1.0

log = logging.getLogger(__name__)


class ProjectPostgres:
    """Started when it is first asked for, and again when it dies."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._starting = asyncio.Lock()
        self._server: EmbeddedPostgres | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def uri(self) -> str:
        """Its address, once it answers. Raises EmbeddedError."""
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.to_thread(start, self._root)
                self._keeping = asyncio.create_task(self._keep(self._server))
            return self._server.conninfo

    async def stop(self) -> None:
        """Give it up; it ends unless somebody else uses it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    async def _keep(self, server: EmbeddedPostgres) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if server.pid is not None:
                continue
            log.warning("The project's Postgres is gone; it is started again")
            try:
                await asyncio.to_thread(server.revive)
            except EmbeddedError as error:
                log.error("The project's Postgres does not start", extra={"reason": str(error)})


def start(root: Path) -> EmbeddedPostgres:
    """Start it, or join it. Blocks. Raises EmbeddedError."""
    return EmbeddedPostgres.start(project_folder(root) / "postgres")
