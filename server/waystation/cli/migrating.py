"""`waystation migrate`: bring the schema to this version, or say what that would do."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path

from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import say
from waystation.config import Settings
from waystation.process import database_uri
from waystation_db.migrate import Phase, migrate
from waystation_db.migration_plan import Effect, Plan, Planned
from waystation_db.migration_plan import plan as planned

_INDENT = " " * 9


def run(config: Path | None, *, plan: bool, phase: Phase | None) -> None:
    """Apply what is pending; with `plan` only say what that would do.

    Raises:
        ConfigError: no DATABASE_URI.
        MigrationError, DatabaseUnavailable: as `waystation_db.migrate` says.
    """
    uri = database_uri(settings_of(config))
    if plan:
        say("\n".join(_told(asyncio.run(planned(uri, phase=phase)))))
        return
    names = asyncio.run(migrate(uri, phase=phase))
    say("\n".join(f"applied  {name}" for name in names) if names else "The schema is up to date.")


def _told(plan: Plan) -> list[str]:
    lines = [line for step in plan.steps for line in _step(step, plan.rows)] or ["Nothing is pending."]
    if plan.steps and plan.long_transactions:
        lines.append(
            f"{plan.long_transactions} other transactions have been open for up to {plan.oldest_s:.0f} s. A lock that "
            "one of them holds is waited for 1 s at a time, 60 times."
        )
    return lines


def _step(step: Planned, rows: dict[str, int]) -> list[str]:
    when = "; when no process of the version before is left" if step.name.endswith(".post") else ""
    lines = [f"pending  {step.name}  {step.verdict}{when}", *_wrapped(step.about)]
    if step.makes:
        lines += _wrapped(f"makes {', '.join(step.makes)}")
    return [*lines, *(_INDENT + _effect(one, rows) for one in step.effects)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 108, initial_indent=_INDENT, subsequent_indent=_INDENT)


def _effect(effect: Effect, rows: dict[str, int]) -> str:
    count = rows.get(effect.table, -1)
    size = f" ({count:,} rows or so)" if count >= 0 else ""
    warned = "" if effect.verdict == "safe under load" else f"  <- {effect.verdict}"
    return f"{effect.table}{size}: {effect.action}; {effect.lock}{warned}"


def settings_of(config: Path | None) -> Settings:
    """The settings; those of a project where one is named or in the current folder. Its graphs are not needed."""
    if config is None and not (Path.cwd() / CONFIG_NAME).is_file():
        return Settings.load()
    from waystation.catalog.project import configure

    return configure(config, root=Path.cwd())[0]
