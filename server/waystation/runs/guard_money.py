"""Money over HTTP: how budgets stand, granting more, what is in the ledger. Every question is about the caller's
tenant; who has only the role `user` sees what is their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from waystation.auth import Principal
from waystation.auth.roles import roles_of
from waystation.catalog import Project
from waystation.errors import BadRequest, Forbidden, NotFound, Unavailable
from waystation.runs.guard_kill import only_admins
from waystation.services import GraphSide, Services
from waystation_db import guard_history, guard_ledger, guard_standing
from waystation_db.guard_history import Choice, Total
from waystation_db.guard_standing import AccountRow

if TYPE_CHECKING:  # loaded where there are guards
    from datetime import datetime

    from waystation_guards.budget.limits import Limit

Scope = Literal["run", "thread", "assistant", "graph", "user", "key", "tenant"]
Unit = Literal["usd", "tokens", "model_calls", "tool_calls", "seconds"]

_SEE_ALL: Final = frozenset({"admin", "service", "reader"})


@dataclass(frozen=True, slots=True)
class GrantWish:
    """More of a unit for the owner of a scope, in the present window of the limit `name`."""

    scope: Scope
    owner: str
    unit: Unit
    name: str
    amount: float
    reason: str


def sees_only(caller: Principal) -> str | None:
    """Whose figures the caller may see: their own identity's, or for None the whole tenant's.

    Raises:
        Forbidden: nobody's.
    """
    if caller.rules is None or caller.is_studio or roles_of(caller.permissions) & _SEE_ALL:
        return None
    if not caller.identity:
        raise Forbidden("Only the roles admin, service, reader and user may see this")
    return caller.identity


async def budgets(
    services: Services,
    caller: Principal,
    *,
    scope: Scope | None,
    owner: str | None,
    past: bool,
    limit: int,
    offset: int,
) -> list[dict[str, Any]]:
    """How limits stand, account by account: one more than `limit`, where there are more. Raises Forbidden."""
    mine = sees_only(caller)
    if mine is not None:
        scope, owner = "user", mine
    async with services.db.connection() as conn:
        now = await guard_ledger.clock(conn)
        known = current_limits(services.project, caller.tenant_id, now)
        windows = None if past else sorted({"", *(window for *_, window in known)})
        rows = await guard_standing.standing(
            conn, caller.tenant_id, scope=scope, owner=owner, windows=windows, limit=limit + 1, offset=offset
        )
    return [standing_of(row, known.get((row.scope, row.unit, row.window)), now) for row in rows]


async def grant(services: Services, caller: Principal, wish: GrantWish) -> dict[str, Any]:
    """Let an owner spend more in the present window of a limit: how it stands then.

    Raises:
        Forbidden: the caller is no admin.
        NotFound: the policy has no such limit.
        BadRequest: the scope is `tenant`, and the owner another one.
        Unavailable: the ledger does not answer.
    """
    only_admins(caller)
    if wish.scope == "tenant" and wish.owner != caller.tenant_id:
        raise BadRequest("owner: with the scope tenant, the caller's own tenant was expected")
    found = [one for one in _all_limits(services.project, caller.tenant_id) if _is_meant(one, wish)]
    if not found:
        raise NotFound("waystation.guards.budgets has no such limit")
    one = found[0]

    async def there(side: GraphSide) -> None:
        from waystation_guards.budget.budget import Budget
        from waystation_guards.calls import CallSite
        from waystation_guards.ports import PortUnavailable

        assert side.guards is not None  # where there is a policy
        site = CallSite(tenant=caller.tenant_id, attempt=0)
        if wish.scope != "tenant":
            site = replace(site, **{wish.scope: wish.owner})
        by = f"{caller.identity or 'anonymous'}: {wish.reason}" if wish.reason else caller.identity
        try:
            await Budget(one).grant(side.guards.ports_for(caller.tenant_id), site, one, wish.amount, by=by)
        except PortUnavailable as error:
            raise Unavailable("The ledger does not answer", headers={"Retry-After": "2"}) from error

    await services.graphs.call(there)
    async with services.db.connection() as conn:
        now = await guard_ledger.clock(conn)
        rows = await guard_standing.standing(
            conn, caller.tenant_id, scope=wish.scope, owner=wish.owner, windows=[_label(one, now)]
        )
    row = next(row for row in rows if (row.scope, row.unit) == (_scope(one), one.unit))
    return standing_of(row, one, now)


async def entries(
    services: Services, caller: Principal, choice: Choice, *, limit: int, offset: int
) -> tuple[bytes, int, bool]:
    """A page of the ledger with the sums of all that was asked for, as JSON; how many entries, and whether more follow.

    Raises:
        Forbidden: the caller may see nothing.
    """
    mine = sees_only(caller)
    if mine is not None:
        choice = replace(choice, user=mine)
    async with services.db.connection() as conn:
        found = await guard_history.entries_page(conn, caller.tenant_id, choice, limit=limit + 1, offset=offset)
        sums = await guard_history.totals(conn, caller.tenant_id, choice)
    listed = b",".join(found[:limit])
    body = b'{"entries":[' + listed + b'],"totals":' + orjson.dumps(_sums(sums)) + b"}"
    return body, len(found[:limit]), len(found) > limit


def _sums(sums: list[Total]) -> dict[str, Any]:
    return {
        "cost_nano_usd": sum(one.cost_nano_usd for one in sums),
        "cost_usd": sum(one.cost_nano_usd for one in sums) / 1e9,
        "by_model": [
            {
                "kind": one.kind,
                "model": one.model,
                "calls": one.calls,
                "cost_nano_usd": one.cost_nano_usd,
                "input_tokens": one.input_tokens,
                "output_tokens": one.output_tokens,
                "unpriced": one.unpriced,
            }
            for one in sums
        ],
    }


def _all_limits(project: Project, tenant_id: str) -> list[Limit]:
    """The limits of the policy that may hold for runs of a tenant."""
    keys = project.guards
    if keys is None:
        return []
    from waystation.guarding.policy import limits

    about = [entry for entry in keys.budgets if entry.selector.may_concern(tenant_id)]
    return [one for entry in about for one in limits([entry])]


def current_limits(project: Project, tenant_id: str, now: datetime) -> dict[tuple[str, str, str], Limit]:
    """The policy's limits for a tenant by scope, unit and window of their accounts; of several the smallest."""
    known: dict[tuple[str, str, str], Limit] = {}
    for one in sorted(_all_limits(project, tenant_id), key=lambda one: -one.size):
        known[_scope(one), one.unit, _label(one, now)] = one
    return known


def _is_meant(one: Limit, wish: GrantWish) -> bool:
    return (one.scope, one.unit) == (wish.scope, wish.unit) and one.name == wish.name


def _scope(limit: Limit) -> str:
    return f"{limit.scope}/{limit.name}" if limit.name else limit.scope


def _label(limit: Limit, now: datetime) -> str:
    from waystation_guards.budget.windows import window_label

    return window_label(limit.window, now, limit.timezone)


def standing_of(row: AccountRow, limit: Limit | None, now: datetime) -> dict[str, Any]:
    """An account in the limit's own unit."""
    from waystation_guards.budget.limits import UNIT_SIZES
    from waystation_guards.budget.windows import window_end

    size: int = UNIT_SIZES[row.unit]  # pyright: ignore[reportArgumentType]  # the table's CHECK has the same units
    scope, _, name = row.scope.partition("/")
    end = None if limit is None else window_end(limit.window, now, limit.timezone)
    return {
        "scope": scope,
        "name": name,
        "owner": row.owner,
        "unit": row.unit,
        "window": row.window,
        "limit": None if limit is None else limit.size,
        "spent": row.spent / size,
        "held": row.held / size,
        "at_risk": row.at_risk / size,
        "left": None if limit is None else max(0.0, limit.size - row.spent / size),
        "on_limit": None if limit is None else limit.on_limit,
        "resets_at": None if end is None else end.isoformat(),
    }
