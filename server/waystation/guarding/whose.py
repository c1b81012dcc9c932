"""Whose a run is, as the selectors of a policy and the kill switch look at it."""

from __future__ import annotations

from dataclasses import dataclass

from waystation.guarding.kill import configurable_of, key_of
from waystation_db.rows import ClaimedRun


@dataclass(frozen=True, slots=True)
class Whose:
    """What selectors look at; empty where it is not known."""

    graph: str
    assistant: str
    tenant: str
    user: str
    key: str

    @classmethod
    def of(cls, run: ClaimedRun) -> Whose:
        """A claimed run's."""
        configurable = configurable_of(run)
        user = str(configurable.get("langgraph_auth_user_id") or "")
        key = key_of(configurable.get("langgraph_auth_user"))
        return cls(run.graph_id, run.assistant_id, run.key.tenant_id, user, key)
