"""A process of the server: what it opens, in order, and how it goes away.

    settings, project ──▶ event log ──▶ graph loop (database, store, checkpointer, catalog, worker, upkeep)
                                   └──▶ API loop   (database, readers, listener) ──▶ Services

Leaving goes the other way round. `Process.drain` comes first: it stops claiming and hands over what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import orjson
import structlog

from waystation.catalog import Catalog, Project
from waystation.catalog.webhook_headers import webhook_headers
from waystation.config import Settings, process_environment
from waystation.errors import ConfigError
from waystation.events import MemoryStore, RoutedLog, in_process, over_postgres, over_redis
from waystation.guarding.kill import KillSwitch
from waystation.runs.guard_kill import KillClock
from waystation.runs.webhook_urls import sends_webhooks
from waystation.services import GraphHost, GraphSide, Services
from waystation.services.api_store import open_api_store
from waystation.services.audit import open_audit
from waystation.services.encryption import on_this_loop, open_cipher
from waystation.services.gates import load_auth, open_gate
from waystation.services.guards import check_budgets, open_guards
from waystation.services.http_app import open_http_app
from waystation.services.http_limits import open_http_limits
from waystation.services.loopback import installed_loopback
from waystation.services.priorities import load_priority
from waystation.services.project_parts import open_project_store, project_serde
from waystation.services.queue_room import QueueRoom
from waystation.services.traces import tracing_of
from waystation.services.wakeups import Wakeups
from waystation.telemetry.counting import watch_loop_lag
from waystation.telemetry.tracing import Tracing
from waystation.worker import CronClock, Upkeep, WebhookSender, Worker
from waystation_db import events as chunk_rows
from waystation_db import kills as kill_rows
from waystation_db import runs, webhooks
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.cipher import Cipher
from waystation_db.listen import Gap, Listener, Notification
from waystation_db.pool import Database
from waystation_db.rows import RunKey

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.guarding.audit import AuditWriter

log = structlog.get_logger(__name__)

# Sync nodes and tools run in threads of the graph loop's executor; Python's default would be six on two cores.
_THREADS_PER_SLOT = 4
_MIN_THREADS = 32


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is up."""

    services: Services
    worker: Worker | None

    async def drain(self, grace_s: float) -> None:
        """Claim nothing more; let runs finish or hand over, for at most `grace_s` seconds. Then leave the process."""
        worker = self.worker
        if worker is None:
            return

        await _drained(worker, self.services.graphs, grace_s)


async def _drained(worker: Worker, host: GraphHost, grace_s: float) -> None:
    async def drain(_side: GraphSide) -> None:
        await worker.drain(grace_s)

    await host.call(drain)


def _handing_over(worker: Worker, host: GraphHost) -> Callable[..., Awaitable[None]]:
    """The exit of a process whose opening breaks off: its worker may have claimed runs by then."""

    async def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await _drained(worker, host, 0)

    return leave


def new_worker_id() -> str:
    """A name for this process's claims: host, pid, and something no other process of that pid had."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


LogKind = Literal["memory", "redis", "postgres"]


@contextlib.asynccontextmanager
async def open_process(
    settings: Settings,
    project: Project,
    *,
    alone: bool,
    worker_id: str | None = None,
    take_over: bool = False,
    api: bool = True,
) -> AsyncGenerator[Process]:
    """Open everything this process needs; its worker runs when `settings.n_jobs_per_worker` is not 0.

    `alone`: no other process executes or serves this database's runs, so live events may stay in memory. `take_over`:
    whoever used `worker_id` before is dead for certain; its runs are put back at once and not when their leases end.
    `api`: the process serves the API, and with it the project's own web application.

    Raises:
        ConfigError: a graph cannot be loaded, auth cannot be used, or no database is configured.
        waystation_db.errors.DatabaseUnavailable: Postgres does not answer.
    """
    kind = log_kind(settings, alone=alone)
    conninfo = database_uri(settings)
    memory = MemoryStore(run_bytes=settings.stream_buffer_bytes)
    name = worker_id or new_worker_id()
    listener = Listener(settings.listen_uri or conninfo, CHANNELS)
    async with contextlib.AsyncExitStack() as stack:
        db = await stack.enter_async_context(_database(settings, "waystation-api"))
        db.cipher = cipher = await open_cipher(settings, project, db)
        if take_over:
            async with db.connection() as conn:
                orphans = await runs.disown(conn, worker_id=name)
            if orphans:
                log.info("runs of the process before this one are taken up again", runs=orphans)
        await listener.open()
        stack.push_async_callback(listener.close)
        events = _event_log(settings, kind, db, memory, listener)
        stack.push_async_callback(events.close)
        loopback = stack.enter_context(installed_loopback())  # before the project's modules, which may ask for it
        box = _Box()
        kills = KillSwitch(db, status=project.guards.kill.status if project.guards else 403)
        audit = await stack.enter_async_context(open_audit(project, db, process=name))
        tracing = stack.enter_context(tracing_of(settings, project))
        side = _graph_side(
            settings,
            project,
            kind,
            memory,
            name,
            box,
            api=api,
            cipher=cipher,
            kills=kills,
            audit=audit,
            tracing=tracing,
        )
        host = await stack.enter_async_context(GraphHost.run(side))
        if box.worker is not None:
            stack.push_async_exit(_handing_over(box.worker, host))
        wakeups = Wakeups(box.worker)
        hearing = asyncio.create_task(_hear(listener, wakeups), name="hear")
        stack.push_async_callback(_cancelled, hearing)
        room = QueueRoom(db, limit=settings.max_queue)
        gate = await open_gate(settings, project, db, host) if api else None
        store = await stack.enter_async_context(open_api_store(db, host))
        limits = await stack.enter_async_context(open_http_limits(settings, project, db, alone=alone)) if api else None
        services = Services(
            settings,
            project,
            db,
            host,
            events,
            wakeups,
            room,
            store,
            kills,
            gate=gate,
            limits=limits,
            audit=audit,
            tracing=tracing,
            loopback=loopback,
        )
        await stack.enter_async_context(KillClock(services, listener).running())
        webhook_headers(project.webhooks, {**project.env, **process_environment()})
        if box.worker is not None:
            await stack.enter_async_context(_clockwork(services, listener))
        yield Process(services, box.worker)


@contextlib.asynccontextmanager
async def _clockwork(services: Services, listener: Listener) -> AsyncGenerator[None]:
    """What a process with a worker does beside executing runs, on the loop that no user code blocks."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(CronClock(services).running())
        if sends_webhooks(services):
            sender = WebhookSender(services)
            await stack.enter_async_context(sender.running())
            hearing = asyncio.create_task(_hear_webhooks(listener, sender), name="hear-webhooks")
            stack.push_async_callback(_cancelled, hearing)
        yield


def log_kind(settings: Settings, *, alone: bool) -> LogKind:
    """Which way live events go.

    Raises:
        ConfigError: a way was asked for that this process does not have.
    """
    match settings.event_log:
        case "auto":
            return "redis" if settings.redis_uri else "memory" if alone else "postgres"
        case "redis" if settings.redis_uri is None:
            raise ConfigError("WAYSTATION_EVENT_LOG is redis, but REDIS_URI is not set")
        case "memory" if not alone:
            raise ConfigError("WAYSTATION_EVENT_LOG is memory, which only `dev` and `serve --with-worker` can use")
        case chosen:
            return chosen


def database_uri(settings: Settings) -> str:
    """The address of Postgres.

    Raises:
        ConfigError: there is none.
    """
    if settings.database_uri is None:
        raise ConfigError("DATABASE_URI is not set: give the address of a Postgres database (postgres://...)")
    return settings.database_uri


CHANNELS = ("ws_run", "ws_cancel", chunk_rows.CHANNEL, webhooks.CHANNEL, kill_rows.CHANNEL)


@dataclass(slots=True)
class _Box:
    """Carries the worker from the graph loop, where it is made, to the API loop, which only sends it hints."""

    worker: Worker | None = field(default=None)


def _database(settings: Settings, name: str) -> Database:
    return Database(
        database_uri(settings), max_size=settings.postgres_pool_max_size, name=name, prepare=settings.prepare
    )


def _event_log(
    settings: Settings, kind: LogKind, db: Database, memory: MemoryStore, listener: Listener | None
) -> RoutedLog:
    match kind:
        case "memory":
            return in_process(db, memory, poll_s=settings.poll_s)
        case "redis":
            return over_redis(
                db,
                settings.redis_uri or "",
                listener=listener,
                key_prefix=settings.redis_key_prefix,
                stream_bytes=settings.stream_buffer_bytes,
                poll_s=settings.poll_s,
            )
        case "postgres":
            return over_postgres(db, listener=listener, poll_s=settings.poll_s)


def _graph_side(
    settings: Settings,
    project: Project,
    kind: LogKind,
    memory: MemoryStore,
    worker_id: str,
    box: _Box,
    *,
    api: bool,
    cipher: Cipher | None,
    kills: KillSwitch,
    audit: AuditWriter | None,
    tracing: Tracing | None,
) -> Callable[[], AbstractAsyncContextManager[GraphSide]]:
    """Opens what lives on the graph loop; the worker too, unless this process serves the API only."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[GraphSide]:
        threads = max(_MIN_THREADS, _THREADS_PER_SLOT * settings.n_jobs_per_worker)
        executor = ThreadPoolExecutor(threads, thread_name_prefix="waystation-sync")
        asyncio.get_running_loop().set_default_executor(executor)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
            db = await stack.enter_async_context(_database(settings, "waystation-graphs"))
            db.cipher = on_this_loop(cipher)
            store = await stack.enter_async_context(open_project_store(db, project))
            saver = PostgresCheckpointer(db, serde=project_serde(project))
            stack.push_async_callback(saver.aclose)
            catalog = await Catalog.load(project, store=store)
            app = await stack.enter_async_context(open_http_app(project)) if api else None
            updates = asyncio.Semaphore(max(1, db.max_size // 4))
            auth = await load_auth(project) if api else None
            assign = await load_priority(project)
            guards = open_guards(settings, project, db, kills, audit=audit)
            stack.push_async_callback(guards.close)
            await check_budgets(guards)
            side = GraphSide(
                catalog,
                saver,
                store,
                db,
                updates=updates,
                http_app=app,
                auth=auth,
                priority=assign,
                kills=kills,
                guards=guards,
                tracing=tracing,
            )
            stack.push_async_callback(_cancelled, asyncio.create_task(watch_loop_lag("graphs", db)))
            if settings.n_jobs_per_worker:
                events = _event_log(settings, kind, db, memory, None)
                stack.push_async_callback(events.close)
                box.worker = await stack.enter_async_context(Worker.running(worker_id, side, events, settings))
                await stack.enter_async_context(Upkeep(side, events, settings).running())
            yield side

    return opened


async def _hear(listener: Listener, wakeups: Wakeups) -> None:
    """Pass hints of other processes to the worker of this one. After a gap there may be work nobody told of."""
    with listener.subscribe("ws_run", "ws_cancel") as heard:
        async for item in heard:
            match item:
                case Gap():
                    wakeups.work_available()
                case Notification("ws_run"):
                    wakeups.work_available()
                case Notification(payload=payload):
                    _pass_wish(payload, wakeups)


async def _hear_webhooks(listener: Listener, sender: WebhookSender) -> None:
    with listener.subscribe(webhooks.CHANNEL) as heard:
        async for _ in heard:
            sender.wake()


def _pass_wish(payload: str, wakeups: Wakeups) -> None:
    try:
        wish = orjson.loads(payload)
        key = RunKey(wish["tenant_id"], wish["thread_id"], wish["run_id"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        # Anybody with a connection can NOTIFY; what is not ours is no reason to stop listening.
        log.warning("an unreadable cancel hint was ignored")
        return
    wakeups.stop_run(key, wish.get("action") or "interrupt", wish.get("reason"))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
