"""The checks of `waystation doctor --production`: what works without, and what an operator wants to know before going
live. `docs/production.md` is the list that they belong to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from waystation.catalog.project import Project
from waystation.cli.check_verdicts import Verdict, fail, hint, ok, warn
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation.services.gates import own_auth
from waystation_db.pool import normalize_conninfo
from waystation_db.queue import Unattended, queue_unattended
from waystation_db.server_facts import ServerFacts, server_facts

_ANSWER_S = 5
_UNATTENDED_S = 60.0
"""What waits for so long, no living worker has taken up: they look every few seconds."""
_SKEW = timedelta(seconds=5)
_RUNS_PER_CONNECTION = 4
_LISTENS_RENEWS_AND_SPARE = 4
"""Beside its two pools: `docs/postgres.md`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """How many processes of each kind there will be at most."""

    apis: int = 1
    workers: int = 1

    @property
    def processes(self) -> int:
        return self.apis + self.workers


async def check_production(settings: Settings, project: Project, fleet: Fleet) -> AsyncIterator[Verdict]:
    """What is missing in the project and the environment, then what Postgres has for a fleet of this size."""
    for verdict in (*_access(settings, project), *_secrets(settings), *_keeping(project), *_told(settings)):
        yield verdict
    yield _live_events(settings, fleet)
    yield _slots(settings)
    if settings.database_uri is None:
        yield fail("no DATABASE_URI: `serve` and `worker` need one", "docs/postgres.md says what it has to be")
        return
    async for verdict in _postgres(settings, settings.database_uri, fleet):
        yield verdict
    yield hint("backups: nothing here can tell", "restore one somewhere else, and compare")


def _access(settings: Settings, project: Project) -> Iterator[Verdict]:
    try:
        own = own_auth(settings, project)
    except ConfigError as error:
        yield fail(error.message, "see docs/auth.md")
        return
    ways = [name for name, is_on in (("API keys", own.api_keys), ("tokens", own.jwt is not None)) if is_on]
    if project.auth is not None and project.auth.path is not None:
        ways.append(f"handlers ({project.auth.path})")
    if ways:
        yield ok(f"auth: {', '.join(ways)}")
    else:
        yield warn("auth is off: whoever reaches the port is an admin", '"waystation": {"auth": {"api_keys": true}}')
    if own.api_keys and settings.key_pepper is None:
        yield warn(
            "WAYSTATION_KEY_PEPPER is not set: who reads the database can try keys against their hashes",
            "set it before keys are made; the same in all processes",
        )
    if settings.studio_auth == "local":
        yield warn("WAYSTATION_STUDIO_AUTH is `local`: anybody on this machine is a developer", "unset it")
    if "*" in settings.cors_allow_origins and (project.http is None or project.http.cors is None):
        yield hint("CORS_ALLOW_ORIGINS is `*`: pages of any origin may call", "name your own")


def _secrets(settings: Settings) -> Iterator[Verdict]:
    if settings.webhook_secret is None:
        yield warn(
            "WAYSTATION_WEBHOOK_SECRET is not set: receivers cannot tell our webhooks from others'",
            "set one, see docs/webhooks.md",
        )
    else:
        yield ok("webhooks are signed")
    if settings.encryption_keys is None and settings.langgraph_aes_key is None:
        yield hint(
            "what is stored is not encrypted by Waystation", "WAYSTATION_ENCRYPTION_KEYS, see docs/encryption.md"
        )
    else:
        yield ok("what is stored is encrypted")


def _keeping(project: Project) -> Iterator[Verdict]:
    ttl = project.checkpointer.ttl if project.checkpointer else None
    if ttl is None or ttl.default_ttl is None:
        yield warn(
            "no checkpointer.ttl: threads are kept until somebody deletes them, and the database grows",
            '"checkpointer": {"ttl": {"strategy": "delete", "default_ttl": 43200}} is 30 days',
        )
    else:
        yield ok(f"checkpointer.ttl: {ttl.strategy} after {ttl.default_ttl:g} minutes")
    if project.guards is None or not project.guards.budgets:
        yield warn("no budgets: nothing ends a run that spends without end", "see docs/guards/policy.md")


def _told(settings: Settings) -> Iterator[Verdict]:
    if settings.log_json is False:  # unset: JSON where no terminal is, as in a container
        yield hint("LOG_JSON is off: log lines are for people", "LOG_JSON=true for what collects them")
    if settings.expose_errors:
        yield hint("WAYSTATION_EXPOSE_ERRORS is on: clients read the text of graphs' exceptions", "turn it off")


def _live_events(settings: Settings, fleet: Fleet) -> Verdict:
    if settings.redis_uri is not None or fleet.processes == 1:
        return ok(f"live events of {fleet.processes} process(es) have their way")
    return warn(
        f"no REDIS_URI for {fleet.processes} processes: live events go through Postgres, later and at its cost",
        "set REDIS_URI",
    )


def _slots(settings: Settings) -> Verdict:
    runs, pool = settings.n_jobs_per_worker, settings.postgres_pool_max_size
    if runs > pool * _RUNS_PER_CONNECTION:
        return warn(
            f"{runs} runs at a time share a pool of {pool}: they will wait for connections",
            f"LANGGRAPH_POSTGRES_POOL_MAX_SIZE={-(-runs // _RUNS_PER_CONNECTION)}, or fewer N_JOBS_PER_WORKER",
        )
    return ok(f"{runs} runs at a time share a pool of {pool} connections")


async def _postgres(settings: Settings, uri: str, fleet: Fleet) -> AsyncIterator[Verdict]:
    address = normalize_conninfo(uri, application_name="waystation-doctor")
    try:
        conn = await psycopg.AsyncConnection.connect(
            address, connect_timeout=_ANSWER_S, autocommit=True, prepare_threshold=None
        )
    except psycopg.Error:
        return  # told already
    async with conn:
        await conn.execute("select 1")  # what a first statement costs is not the clock's
        before = datetime.now(UTC)
        facts = await server_facts(conn)
        after = datetime.now(UTC)
        waiting = await _unattended(conn)
        is_open = conn.info.host and not conn.info.host.startswith("/") and not conn.pgconn.ssl_in_use
    yield _connections(settings, facts, fleet)
    yield check_clock(facts.now, before, after)
    if waiting is not None:
        yield check_workers(waiting)
    if facts.off:
        yield warn(
            f"Postgres has {', '.join(facts.off)} off: a crash of its machine loses what was acknowledged",
            "turn on",
        )
    if is_open:
        yield hint("the connection to Postgres is not encrypted", "sslmode=verify-full in DATABASE_URI")
    if facts.is_superuser:
        yield hint("DATABASE_URI is a superuser's", "a role that owns its database is enough")


def _connections(settings: Settings, facts: ServerFacts, fleet: Fleet) -> Verdict:
    if settings.listen_uri is not None or not settings.prepare:
        return ok("a pooler stands before Postgres: what it lets through is set there (default_pool_size)")
    each = 2 * settings.postgres_pool_max_size + _LISTENS_RENEWS_AND_SPARE
    most = each * fleet.processes
    said = f"{fleet.apis} API and {fleet.workers} worker process(es) may hold {most} connections"
    if most > facts.connections:
        return warn(
            f"{said}; Postgres has {facts.connections} for them",
            f"raise max_connections, put PgBouncer before it, or LANGGRAPH_POSTGRES_POOL_MAX_SIZE="
            f"{max(2, (facts.connections // fleet.processes - _LISTENS_RENEWS_AND_SPARE) // 2)}",
        )
    return ok(f"{said}; Postgres has {facts.connections}")


async def _unattended(conn: psycopg.AsyncConnection) -> Unattended | None:
    """What waits; None before the schema is there, which has a line of its own."""
    try:
        return await queue_unattended(conn, grace_s=_UNATTENDED_S)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return None


def check_workers(found: Unattended) -> Verdict:
    """Whether somebody does what only workers do: execute runs, put back those of dead workers, fire crons."""
    kinds = (
        (found.pending, f"due runs (the oldest for {found.oldest_wait_s or 0:.0f} s)"),
        (found.lost, "runs of workers that are gone"),
        (found.crons, "due crons"),
    )
    waiting = ", ".join(f"{count} {what}" for count, what in kinds if count)
    if not waiting:
        return ok(f"nothing waits for a worker; {found.executing} run(s) are executed")
    if found.executing:  # under a lease that somebody renews
        return warn(
            f"workers do not keep up ({found.executing} run(s) are executed): {waiting} wait for them",
            "more workers, or more N_JOBS_PER_WORKER; docs/operations/runbooks/stuck-queue.md",
        )
    return warn(
        f"no worker is alive: {waiting} wait for one",
        "`waystation worker`, or `serve --with-worker`; docs/operations/runbooks/worker-fleet.md",
    )


def check_clock(theirs: datetime, before: datetime, after: datetime) -> Verdict:
    """Leases do not care: only Postgres's clock decides. Tokens, signatures of webhooks and logs do."""
    behind, ahead = before - theirs, theirs - after
    if max(behind, ahead) > _SKEW:
        seconds = max(behind, ahead).total_seconds()
        return warn(
            f"this machine's clock is {seconds:.0f} s {'ahead of' if behind > ahead else 'behind'} Postgres's",
            "have both follow a time server: tokens expire and webhooks are signed by this clock",
        )
    return ok("this machine's clock and Postgres's agree")
