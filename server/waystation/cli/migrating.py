"""`waystation migrate`: bring the schema to this version, or say what that would do."""

from __future__ import annotations

import asyncio
from pathlib import Path

from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import say
from waystation.config import Settings
from waystation.process import database_uri
from waystation_db.migrate import Phase, migrate, pending


def run(config: Path | None, *, plan: bool, phase: Phase | None) -> None:
    """Apply what is pending; with `plan` only name it.

    Raises:
        ConfigError: no DATABASE_URI.
        MigrationError, DatabaseUnavailable: as `waystation_db.migrate` says.
    """
    uri = database_uri(settings_of(config))
    if plan:
        names = asyncio.run(pending(uri, phase=phase))
        say("\n".join(f"pending  {name}" for name in names) if names else "Nothing is pending.")
        return
    names = asyncio.run(migrate(uri, phase=phase))
    say("\n".join(f"applied  {name}" for name in names) if names else "The schema is up to date.")


def settings_of(config: Path | None) -> Settings:
    """The settings; those of a project where one is named or in the current folder. Its graphs are not needed."""
    if config is None and not (Path.cwd() / CONFIG_NAME).is_file():
        return Settings.load()
    from waystation.catalog.project import configure

    return configure(config, root=Path.cwd())[0]
