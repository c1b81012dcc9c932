"""What `waystation kill` and `waystation budget` do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import orjson

from waystation.auth.api_keys import key_id_of
from waystation.auth.principal import is_tenant_id
from waystation.catalog.project import Project, configure
from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import say
from waystation.process import database_uri
from waystation.runs.guard_money import current_limits, standing_of
from waystation_db import guard_ledger, guard_standing, kills
from waystation_db.kills import EVERYBODY, Conn, KillScope
from waystation_db.migrate import check
from waystation_db.pool import Database

T = TypeVar("T")

_SPAN: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
COMMAND_LINE: Final = "the command line"
_BATCH: Final = 500


def stop(config: Path | None, *, tenant: str | None, scope: str, owner: str, reason: str, for_: str | None) -> None:
    """Stop a scope, and say what was stopped.

    Raises:
        UsageError: no such tenant name, time, assistant id or key. ConfigError: no DATABASE_URI.
    """
    if tenant is not None and not is_tenant_id(tenant):
        raise UsageError(f"--tenant {tenant!r}: expected letters, digits and . _ : @ | + = ~ - (at most 128)")
    seconds = None if for_ is None else seconds_of(for_)
    wanted = cast("KillScope", scope)
    if wanted == "assistant":
        owner = _uuid(owner, "--assistant")

    async def work(conn: Conn) -> tuple[dict[str, Any], int]:
        whose, what = tenant or EVERYBODY, owner
        if wanted == "key":
            what = key_id_of(owner)
            whose = await kills.tenant_of_key(conn, what) or ""
            if not whose or tenant not in (None, whose):
                raise UsageError(f"there is no API key {what!r}{f' of tenant {tenant}' if tenant else ''}")
        async with conn.transaction():
            made = await kills.add(conn, whose, scope=wanted, owner=what, reason=reason, by=COMMAND_LINE, for_s=seconds)
            count = 0
            while wished := await kills.wish_running(conn, limit=_BATCH):
                count += len(wished)
        return orjson.loads(made), count

    made, count = _run(config, work)
    say(_line(made))
    say(f"Told to stop: {count} running; servers end what waits, and refuse what comes.")


def list_kills(config: Path | None) -> None:
    """Print what is stopped, of all tenants."""

    async def work(conn: Conn) -> list[kills.Kill]:
        return list(await kills.in_force(conn))

    found = _run(config, work)
    for one in found:
        left = "until it is lifted" if one.left_s is None else f"for {timedelta(seconds=round(one.left_s))}"
        whose = "all tenants" if one.tenant_id == EVERYBODY else one.tenant_id
        what = "everything" if (one.scope, one.owner) == ("tenant", EVERYBODY) else f"{one.scope} {one.owner}"
        say(f"{one.kill_id}  {whose:<12}  {what}  {left}  {one.reason}".rstrip())
    if not found:
        say("Nothing is stopped.")


def lift_kill(config: Path | None, *, kill_id: str) -> None:
    """Let go on what a kill stopped.

    Raises:
        UsageError: no such kill is in force.
    """
    wanted = _uuid(kill_id, "--lift")

    async def work(conn: Conn) -> bytes | None:
        found = next((one for one in await kills.in_force(conn) if one.kill_id == wanted), None)
        return None if found is None else await kills.lift(conn, found.tenant_id, wanted, by=COMMAND_LINE)

    lifted = _run(config, work)
    if lifted is None:
        raise UsageError(f"no kill {wanted} is in force")
    say(f"lifted  {wanted}")


def show_budgets(config: Path | None, *, tenant: str, scope: str | None, owner: str | None, limit: int) -> None:
    """Print a line for each account."""
    project = _project(config)

    async def work(conn: Conn) -> list[dict[str, Any]]:
        now = await guard_ledger.clock(conn)
        known = {} if project is None else current_limits(project, tenant, now)
        windows = None if not known else sorted({"", *(window for *_, window in known)})
        rows = await guard_standing.standing(conn, tenant, scope=scope, owner=owner, windows=windows, limit=limit)
        return [standing_of(row, known.get((row.scope, row.unit, row.window)), now) for row in rows]

    found = _run(config, work)
    head = ("scope", "owner", "unit", "window", "spent", "held", "limit", "name")
    table = [
        (
            *(one["scope"], one["owner"] or "-", one["unit"], one["window"] or "-"),
            *(f"{one['spent']:g}", f"{one['held']:g}"),
            "-" if one["limit"] is None else f"{one['limit']:g}",
            one["name"],
        )
        for one in found
    ]
    _print(head, table)


def _print(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        say("There are none.")
        return
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _project(config: Path | None) -> Project | None:
    if config is None and not (Path.cwd() / CONFIG_NAME).is_file():
        return None
    return configure(config, root=Path.cwd())[1]


def _run(config: Path | None, work: Callable[[Conn], Awaitable[T]]) -> T:
    settings = settings_of(config)
    uri = database_uri(settings)

    async def there() -> T:
        await check(uri)
        async with Database(uri, max_size=1, name="waystation-cli", prepare=False) as db, db.connection() as conn:
            return await work(conn)

    return asyncio.run(there())


def seconds_of(text: str) -> float:
    """A span such as `1h`. Raises UsageError."""
    found = _SPAN.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(f"--for {text!r}: expected a number and s, m, h or d, such as 1h")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()


def _uuid(text: str, option: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise UsageError(f"{option} {text!r}: expected a UUID") from None


def _line(made: dict[str, Any]) -> str:
    whose = "all tenants" if made["tenant_id"] == EVERYBODY else f"tenant {made['tenant_id']}"
    until = f" until {made['until']}" if made["until"] else ""
    what = whose if made["scope"] == "tenant" else f"{made['scope']} {made['id']} of {whose}"
    return f"stopped  {what}{until}  ({made['kill_id']})"
