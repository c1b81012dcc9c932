"""The caller of a request, as every use case sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the tenant whose rows they see, their identity (empty without auth) and what they may do.

    `user` is the object that an `authenticate` handler returned; graphs get it as `langgraph_auth_user`.
    """

    tenant_id: str = "default"
    identity: str = ""
    permissions: tuple[str, ...] = ()
    user: object | None = None


ANONYMOUS = Principal()
