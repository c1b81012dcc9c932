"""`waystation doctor`: looks at everything a server needs, and says line by line what is wrong and what to do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from waystation.catalog.project import Project, configure
from waystation.cli.check_guards import check_guards
from waystation.cli.check_production import Fleet, check_production
from waystation.cli.check_services import check_postgres, check_redis
from waystation.cli.check_verdicts import Verdict, fail, ok, warn
from waystation.cli.failures import CommandError
from waystation.cli.listening import bind
from waystation.cli.project_lock import holder_of, is_locked
from waystation.cli.terminal import Look, paint, say
from waystation.config import Settings
from waystation.errors import ConfigError

_OLDEST, _NEWEST = (3, 11), (3, 13)
_LOOKS: dict[str, Look] = {"ok": "cyan", "hint": "bold", "warn": "yellow", "fail": "red"}


def run(config: Path | None, *, port: int, fleet: Fleet | None = None, strict: bool = False) -> None:
    """Print a line for each check; with a fleet also those of production. Ends with exit code 1 when one of them fails,
    where it is `strict` also when one warns."""
    failures = asyncio.run(_report(config, port, fleet, strict=strict))
    if failures:
        say(f"\n{failures} {'thing has' if failures == 1 else 'things have'} to be mended.")
        raise SystemExit(1)
    say("\nReady to serve.")


async def _report(config: Path | None, port: int, fleet: Fleet | None, *, strict: bool) -> int:
    failures = 0
    async for verdict in _verdicts(config, port, fleet):
        failures += verdict.level == "fail" or (strict and verdict.level == "warn")
        say(f"{paint(verdict.level.ljust(4), _LOOKS[verdict.level])}  {verdict.text}")
        if verdict.remedy:
            say(f"      → {verdict.remedy}")
    return failures


async def _verdicts(config: Path | None, port: int, fleet: Fleet | None) -> AsyncIterator[Verdict]:
    yield _python()
    settings, project, complaints = _configuration(config)
    for complaint in complaints:
        yield complaint
    if settings is not None:
        async for verdict in check_postgres(settings, project):
            yield verdict
        yield await check_redis(settings)
        if project is not None:
            async for verdict in check_guards(settings, project):
                yield verdict
    if project is not None:
        async for verdict in _graphs(project):
            yield verdict
    if fleet is not None:
        if settings is not None and project is not None:
            async for verdict in check_production(settings, project, fleet):
                yield verdict
        return  # ports are for those who serve on this machine
    yield _port(port, project.root if project else Path.cwd())


def _python() -> Verdict:
    version, text = sys.version_info[:2], f"Python {sys.version.split()[0]}"
    if version < _OLDEST:
        return fail(text, "Waystation needs Python 3.11, 3.12 or 3.13")
    if version > _NEWEST:
        return warn(f"{text} is newer than what Waystation is tested with", "use 3.13 if something is odd")
    return ok(text)


def _configuration(config: Path | None) -> tuple[Settings | None, Project | None, list[Verdict]]:
    try:
        settings, project = configure(config, root=Path.cwd())
    except ConfigError as error:
        verdicts = [fail(line, "see docs/configuration.md") for line in error.message.splitlines()]
        try:
            return Settings.load(), None, verdicts
        except ConfigError:
            return None, None, verdicts
    where = project.config_path or "LANGSERVE_GRAPHS"
    found = ok(f"{where}: {len(project.graphs)} graph(s)")
    return settings, project, [found, *(warn(sentence) for sentence in project.warnings)]


async def _graphs(project: Project) -> AsyncIterator[Verdict]:
    from dataclasses import replace

    from langgraph.store.memory import InMemoryStore

    from waystation.catalog import Catalog

    for graph_id, spec in project.graphs.items():
        try:
            catalog = await Catalog.load(replace(project, graphs={graph_id: spec}), store=InMemoryStore())
        except ConfigError as error:
            yield fail(error.message, "`waystation dev` shows the same; mend the module and look again")
        else:
            await catalog.close()
            yield ok(f"graph {graph_id!r} loads ({spec.target.text})")


def _port(port: int, root: Path) -> Verdict:
    holder = holder_of(root)
    if holder is not None and is_locked(root):
        return ok(f"`waystation {holder.command}` serves this project at {holder.url} (process {holder.pid})")
    try:
        bind("127.0.0.1", port).close()
    except CommandError as error:
        return warn(str(error).partition(". ")[0], f"another one will do: waystation dev --port {port + 1}")
    return ok(f"port {port} is free")
