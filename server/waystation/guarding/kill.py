"""What the kill switch has stopped, as this process knows it: asked for every run that is created or begins here.

    guard_kill (Postgres) ──NOTIFY, and a look every second──▶ KillSwitch.in_force ──▶ admission, worker, guards

Reading it costs nothing while nothing is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from waystation.auth import Principal
from waystation.errors import Killed
from waystation_db import kills
from waystation_db.kills import Kill
from waystation_db.pool import Database
from waystation_db.rows import ClaimedRun

FORBIDDEN, UNAVAILABLE = 403, 503


class KillSwitch:
    """The view of one process. `refresh` belongs to the loop of its database; everything else to any thread."""

    def __init__(self, db: Database, *, status: int = FORBIDDEN) -> None:
        """`status`: what a request for a new run is answered with, 403 or 503."""
        self._db = db
        self._status = status
        self.in_force: tuple[Kill, ...] = ()

    async def refresh(self) -> None:
        """Read what is stopped now. What was known stays where Postgres does not answer: then it raises."""
        async with self._db.connection() as conn:
            self.in_force = await kills.in_force(conn)

    def of_run(self, run: ClaimedRun) -> Kill | None:
        """The kill that a claimed run falls under."""
        if not self.in_force:
            return None
        configurable = configurable_of(run)
        return self.find(
            run.key.tenant_id,
            graph=run.graph_id,
            assistant=run.assistant_id,
            user=str(configurable.get("langgraph_auth_user_id") or ""),
            key=key_of(configurable.get("langgraph_auth_user")),
        )

    def find(self, tenant_id: str, *, graph: str, assistant: str, user: str, key: str) -> Kill | None:
        """The kill that stops a run like this, the oldest first."""
        for kill in self.in_force:
            if kill.concerns(tenant_id, graph=graph, assistant=assistant, user=user, key=key):
                return kill
        return None

    def refuse(self, caller: Principal, assistant_id: str) -> None:
        """Let nobody who is stopped begin a run.

        Raises:
            Killed: the caller, or the assistant.
        """
        if not self.in_force:
            return
        user, key = caller.identity, key_of(caller.user)
        kill = self.find(caller.tenant_id, graph="", assistant=assistant_id, user=user, key=key)
        if kill is not None:
            again = {} if kill.left_s is None else {"Retry-After": str(max(1, round(kill.left_s)))}
            raise Killed(self._status, told(kill), headers=again)


def told(kill: Kill) -> str:
    """The sentence for whoever is stopped."""
    return f"{kills.REASON}{kill.reason or kill.scope}"


def key_of(user: object) -> str:
    """The id of the API key that a caller came with; empty where it was none of ours."""
    if not isinstance(user, Mapping):
        return ""
    found: object = cast("Mapping[str, Any]", user).get("api_key")
    return found if isinstance(found, str) else ""


def configurable_of(run: ClaimedRun) -> Mapping[str, Any]:
    """The run's own `configurable`, with what the server put there at its admission."""
    config = cast("Mapping[str, Any]", run.kwargs.get("config") or {})
    return cast("Mapping[str, Any]", config.get("configurable") or {})
