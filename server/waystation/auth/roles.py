"""What the roles of built-in keys and tokens may. Who has several may what any of them may.

admin     everything in its tenant
service   runs, threads, crons and store items of the whole tenant; reads assistants     (a backend for many users)
user      the same, but of threads and crons only its own, and of the store only namespaces that begin with its
          identity                                                                          (a person in a browser)
reader    reads everything in its tenant, changes nothing
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import orjson

from waystation.auth.principal import ANYTHING, Principal, Resource
from waystation.errors import Forbidden

Role = Literal["admin", "service", "user", "reader"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

OWNER: Final = "waystation_owner"
"""The member of a metadata that says whose a thread or a cron is, where its maker has the role `user`."""

_READING = frozenset({"read", "search", "get", "list_namespaces"})


class RoleRules:
    """The rules of the roles. A caller's roles are among its permissions, as `role:admin`."""

    async def check(self, caller: Principal, resource: Resource, action: str, value: dict[str, Any]) -> str:
        roles = roles_of(caller.permissions)
        if "admin" in roles:
            return ANYTHING
        if action in _READING and (roles & {"service", "reader"}):
            return ANYTHING
        if resource == "assistants":
            return self._of_assistants(roles, action)
        if "service" in roles:
            return ANYTHING
        if "user" in roles:
            return _own(caller.identity, resource, action, value)
        raise Forbidden(f"The role {_told(roles)} does not allow {resource}.{action}")

    def _of_assistants(self, roles: frozenset[str], action: str) -> str:
        if action in _READING and roles:
            return ANYTHING
        raise Forbidden(f"The role {_told(roles)} does not allow assistants.{action}")


def _own(identity: str, resource: Resource, action: str, value: dict[str, Any]) -> str:
    if resource == "store":
        namespace = tuple(value.get("namespace") or ())
        if namespace[:1] != (identity,):
            raise Forbidden(f"namespace: the role user may use those that begin with its identity, {identity!r}")
        return ANYTHING
    if action in ("create", "create_run", "update"):
        # Also with an update, so that nobody gives a thing away or takes another's by writing the owner.
        metadata = value.get("metadata")
        if metadata is not None or action != "update":
            value["metadata"] = {**(metadata or {}), OWNER: identity}
    return orjson.dumps({OWNER: identity}).decode()


def roles_of(permissions: tuple[str, ...]) -> frozenset[str]:
    """The roles among permissions."""
    return frozenset(p.removeprefix("role:") for p in permissions if p.startswith("role:"))


def _told(roles: frozenset[str]) -> str:
    return " and ".join(sorted(roles)) or "of nobody"
