"""What every tenant finds: the assistant that each graph has from the start."""

from __future__ import annotations

from waystation.catalog import Project, default_assistant_id
from waystation_db import assistants
from waystation_db.pool import Database

_REMEMBERED = 100_000


async def make_default_assistants(db: Database, project: Project, tenant_id: str) -> None:
    """Make them where they are missing."""
    defaults = [
        assistants.DefaultAssistant(default_assistant_id(graph_id), graph_id, spec.description)
        for graph_id, spec in project.graphs.items()
    ]
    async with db.connection() as conn:
        await assistants.ensure_defaults(conn, tenant_id, defaults)


class Newcomers:
    """Tenants are nowhere listed: who comes from one that this process has not seen makes it ready. On one loop."""

    def __init__(self, db: Database, project: Project) -> None:
        self._db = db
        self._project = project
        self._known = set[str]()

    async def welcome(self, tenant_id: str) -> None:
        """Have everything ready for a tenant. Costs nothing the second time."""
        if tenant_id in self._known:
            return
        await make_default_assistants(self._db, self._project, tenant_id)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known.add(tenant_id)
