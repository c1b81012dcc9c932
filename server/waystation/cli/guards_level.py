"""What `waystation level` does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from waystation.auth.principal import DEFAULT_TENANT
from waystation.catalog.project import configure
from waystation.cli.failures import UsageError
from waystation.cli.guards import COMMAND_LINE, seconds_of
from waystation.cli.migrating import settings_of
from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import say
from waystation.config import Settings
from waystation.guarding.ports import guard_stores
from waystation.process import database_uri
from waystation_db.migrate import check
from waystation_db.pool import Database
from waystation_guards.levels.levels import DEFAULT, LEVELS, Level, LevelStanding, clear_level, current_level, set_level

AUTO = "auto"


def run(config: Path | None, *, wanted: str | None, name: str | None, for_: str | None, reason: str) -> None:
    """Show the level, after setting it or taking it back.

    Raises:
        UsageError: no such level or time, or the project has no levels. ConfigError: no DATABASE_URI.
    """
    if wanted is not None and wanted not in (*LEVELS, AUTO):
        raise UsageError(f"{wanted!r} is no level: expected {', '.join(LEVELS)} or {AUTO}")
    seconds = None if for_ is None else seconds_of(for_)
    settings, named = settings_of(config), name or _name(config)
    standing = asyncio.run(_apply(settings, wanted=wanted, name=named, for_s=seconds, reason=reason))
    until = f" until {standing.until}" if standing.until else ""
    by = f", by {standing.source}{until}" if standing.source else ""
    why = f": {standing.reason}" if standing.reason else ""
    say(f"{standing.level}{by}{why}")


async def _apply(
    settings: Settings, *, wanted: str | None, name: str, for_s: float | None, reason: str
) -> LevelStanding:
    uri = database_uri(settings)
    await check(uri)
    async with Database(uri, max_size=2, name="waystation-cli", prepare=False) as db:
        stores = guard_stores(db, settings.redis_uri, key_prefix=settings.redis_key_prefix)
        try:
            ports = stores.ports_for(DEFAULT_TENANT)
            if wanted == AUTO:
                await clear_level(ports, name=name)
            elif wanted is not None:
                level = cast("Level", wanted)
                return await set_level(ports, level, for_s=for_s, by=COMMAND_LINE, reason=reason, name=name)
            return await current_level(ports, name=name)
        finally:
            await stores.close()


def _name(config: Path | None) -> str:
    """The project's name for levels, where it is everybody's.

    Raises:
        UsageError: no server of the project would heed a level, or the name is not one alone.
    """
    if config is None and not (Path.cwd() / CONFIG_NAME).is_file():
        say(
            f"No {CONFIG_NAME} here: the levels are those named {DEFAULT!r}, where a server's policy has them.",
            err=True,
        )
        return DEFAULT
    keys = configure(config, root=Path.cwd())[1].guards
    if keys is None or keys.levels is None:
        raise UsageError(
            f"{config or CONFIG_NAME} has no waystation.guards.levels: no server of this project asks for a level, and "
            'setting one would change nothing. "levels": {} in its waystation.guards is enough; levels that a graph '
            "has in its own code are meant with --name"
        )
    found = keys.levels.name
    if "{" in found:
        raise UsageError(f"the project's levels are those of {found!r}: say whose with --name")
    return found
