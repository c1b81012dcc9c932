"""What is offered, and which targets are up: levels and breakers for operators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from waystation.auth import Principal
from waystation.auth.principal import DEFAULT_TENANT
from waystation.errors import Forbidden, NotFound, Unavailable
from waystation.runs.guard_kill import only_admins
from waystation.runs.guard_money import sees_only
from waystation.services import GraphSide, Services
from waystation_db import guard_state

if TYPE_CHECKING:  # loaded where there are guards
    from waystation_guards.levels.levels import LevelPolicy
    from waystation_guards.ports import Ports

T = TypeVar("T")

Level = Literal["full", "reduced", "minimal", "maintenance"]


@dataclass(frozen=True, slots=True)
class LevelOwner:
    """Whose level is meant, where the policy's levels are those of graphs, assistants, users or keys."""

    graph: str = ""
    assistant: str = ""
    user: str = ""
    key: str = ""


async def level(services: Services, caller: Principal, owner: LevelOwner) -> dict[str, Any]:
    """The level that holds.

    Raises:
        NotFound: the policy has no levels. Unavailable: the state does not answer.
    """
    name = _name(services, caller, owner)

    async def read(ports: Ports) -> dict[str, Any]:
        from waystation_guards.levels.levels import current_level

        return (await current_level(ports, name=name)).as_event()

    return {"name": name, **await _asked(services, caller, read)}


async def set_level(
    services: Services, caller: Principal, owner: LevelOwner, *, wanted: Level, for_s: float | None, reason: str
) -> dict[str, Any]:
    """Let a level hold, whatever the rules say.

    Raises:
        Forbidden: the caller is no admin, or the levels are everybody's and the caller of another tenant.
        NotFound, Unavailable: as `level`.
    """
    name = _own_name(services, caller, owner)

    async def write(ports: Ports) -> dict[str, Any]:
        from waystation_guards.levels.levels import set_level as set_in

        return (await set_in(ports, wanted, for_s=for_s, by=caller.identity, reason=reason, name=name)).as_event()

    return {"name": name, **await _asked(services, caller, write)}


async def clear_level(services: Services, caller: Principal, owner: LevelOwner) -> dict[str, Any]:
    """Let the rules decide again. Raises as `set_level`."""
    name = _own_name(services, caller, owner)

    async def clear(ports: Ports) -> dict[str, Any]:
        from waystation_guards.levels.levels import clear_level as clear_in
        from waystation_guards.levels.levels import current_level

        await clear_in(ports, name=name)
        return (await current_level(ports, name=name)).as_event()

    return {"name": name, **await _asked(services, caller, clear)}


async def breakers(services: Services, caller: Principal) -> list[dict[str, Any]]:
    """The targets of the policy, and all others whose breakers are open. Raises Forbidden."""
    sees_only(caller)
    opened = await open_breakers(services, caller.tenant_id)
    known = await services.graphs.call(_targets)
    closed = [
        {"target": name, "is_open": False, "cause": "", "at_most_s": None} for name in known if name not in opened
    ]
    return sorted([*opened.values(), *closed], key=lambda one: str(one["target"]))


async def open_breakers(services: Services, tenant_id: str) -> dict[str, dict[str, Any]]:
    """Target → what is known of its open breaker: those that all tenants share, and the tenant's own."""
    from waystation_guards.ports import SHARED

    async with services.db.connection() as conn:
        values = [*await guard_state.all_values(conn, ""), *await guard_state.all_values(conn, tenant_id)]
    opened: dict[str, dict[str, Any]] = {}
    for one in values:
        name = one.name.removeprefix(SHARED)
        if one.value is not None and name.startswith("target:") and name.endswith(":open"):
            target = name.removeprefix("target:").removesuffix(":open")
            left = None if one.left_ms is None else one.left_ms / 1000
            opened[target] = {"target": target, "is_open": True, "cause": one.value, "at_most_s": left}
    return opened


async def _targets(side: GraphSide) -> list[str]:
    policy = None if side.guards is None else side.guards.policy
    return [] if policy is None else policy.models.targets


def _policy(services: Services) -> LevelPolicy:
    keys = services.project.guards
    if keys is None or keys.levels is None:
        raise NotFound("waystation.guards has no levels")
    return keys.levels.policy()


def _name(services: Services, caller: Principal, owner: LevelOwner) -> str:
    from waystation_guards.calls import CallSite

    site = CallSite(
        tenant=caller.tenant_id, graph=owner.graph, assistant=owner.assistant, user=owner.user, key=owner.key
    )
    return _policy(services).name_for(site)


def _own_name(services: Services, caller: Principal, owner: LevelOwner) -> str:
    only_admins(caller)
    if "{tenant}" not in _policy(services).name and caller.tenant_id != DEFAULT_TENANT:
        raise Forbidden("These levels are those of all tenants: only admins of the tenant `default` set them")
    return _name(services, caller, owner)


async def _asked(services: Services, caller: Principal, work: Callable[[Ports], Coroutine[Any, Any, T]]) -> T:
    """What guards say on the graph loop, where their ports live."""

    async def there(side: GraphSide) -> T:
        from waystation_guards.ports import PortUnavailable

        assert side.guards is not None  # where there is a policy
        try:
            return await work(side.guards.ports_for(caller.tenant_id))
        except PortUnavailable as error:
            raise Unavailable("The guards' state does not answer", headers={"Retry-After": "2"}) from error

    return await services.graphs.call(there)
