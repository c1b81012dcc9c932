"""`waystation up`: API and workers as processes of their own, with whatever they need, under one supervisor.

    supervisor ──▶ Postgres and Redis, unless there are addresses ──▶ migrate ──▶ api, worker-1 … worker-n

A process that dies is started again. Stopping: workers first, while the API still serves; then the API; then the rest.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waystation.catalog.project import Project, configure
from waystation.cli import banner, project_redis
from waystation.cli.children import python_command
from waystation.cli.fleet import Fleet, Role
from waystation.cli.listening import bind, reach, url_of
from waystation.cli.project_files import require_project, root_of
from waystation.cli.project_lock import Holder, ProjectLock, stable_worker_id
from waystation.cli.project_postgres import ProjectPostgres
from waystation.cli.terminal import paint, say
from waystation.cli.watching import changes
from waystation.config import Settings, process_environment
from waystation.telemetry import shared_metrics
from waystation_db.migrate import migrate

_READY_S = 120.0
_CLOSING_S = 20.0
"""How long a process may take beyond its grace period, before it is killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpOptions:
    """The command line."""

    config: Path | None
    host: str
    port: int
    postgres_uri: str | None
    workers: int
    n_jobs: int | None
    watch: bool
    log_level: str | None


def run(options: UpOptions) -> None:
    """Serve until a signal comes.

    Raises CommandError, ConfigError or DatabaseError when it cannot be begun, ChildFailed when a process cannot start.
    """
    started_at = time.monotonic()
    require_project(options.config, process_environment())
    root = root_of(options.config)
    lock = ProjectLock.acquire(root)
    try:
        with bind(options.host, options.port) as sock:
            lock.announce(Holder("up", os.getpid(), url_of(sock)))
            asyncio.run(_serve(options, root, lock, sock, started_at))
    finally:
        lock.release()
    say("Stopped.")


async def _serve(options: UpOptions, root: Path, lock: ProjectLock, sock: socket.socket, started_at: float) -> None:
    await _Up(options, root, lock, sock, started_at).run()


class _Up:
    def __init__(
        self, options: UpOptions, root: Path, lock: ProjectLock, sock: socket.socket, started_at: float
    ) -> None:
        self._options = options
        self._root = root
        self._lock = lock
        self._sock = sock
        self._started_at = started_at
        self._environ = dict(process_environment())  # before the project's env goes into ours: children read it anew
        self._settings, self._project = configure(options.config, root=root)
        given = self._environ.get(shared_metrics.VARIABLE)
        self._metrics = shared_metrics.emptied(Path(given) if given else lock.folder / "metrics")
        self._fleet = Fleet(on_end=lambda pid: shared_metrics.forget(self._metrics, pid))
        self._postgres = ProjectPostgres(root)
        self._stop = asyncio.Event()
        self._signals = 0

    async def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        banner.warnings(self._project.warnings)
        living = asyncio.create_task(self._live())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({living, stopping, self._fleet.failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._fleet.failed.done():
                self._fleet.failed.result()
            if living.done():
                living.result()
        finally:
            for task in (living, stopping):
                task.cancel()
            await asyncio.wait([living, stopping])
            await self._end()

    def _signalled(self) -> None:
        self._signals += 1
        self._stop.set()
        match self._signals:
            case 1:
                say("Stopping: runs finish or hand over. Once more to hand over at once.")
            case 2:
                self._fleet.hurry()
            case _:
                self._fleet.kill()

    async def _live(self) -> None:
        database, redis = await asyncio.gather(self._database_uri(), self._redis_uri())
        for name in await migrate(database):
            say(f"applied  {name}")
        self._environ |= {"DATABASE_URI": database, **({"REDIS_URI": redis} if redis else {})}
        self._environ[shared_metrics.VARIABLE] = str(self._metrics)  # the API shows what the workers count, too
        for role in self._roles():
            self._fleet.add(role)
        await _until_ok(*reach(self._sock))
        self._fleet.established(is_watched=self._options.watch)
        self._greet()
        if self._options.watch:
            await self._replace_on_changes()
        await self._stop.wait()

    async def _database_uri(self) -> str:
        given = self._options.postgres_uri or self._settings.database_uri
        return given or await self._postgres.uri()

    async def _redis_uri(self) -> str | None:
        if self._settings.redis_uri is not None:
            return self._settings.redis_uri
        binary = project_redis.find_binary()
        if binary is None:
            return None  # live events go through Postgres
        role, address = project_redis.redis_role(binary, self._lock.folder)
        self._fleet.add(role)
        return await project_redis.until_it_answers(address)

    def _roles(self) -> Sequence[Role]:
        shared = ["--supervised"]
        if self._options.config is not None:
            shared += ["--config", str(self._options.config.resolve())]
        if self._options.log_level is not None:
            shared += ["--log-level", self._options.log_level]
        jobs = [] if self._options.n_jobs is None else ["--n-jobs-per-worker", str(self._options.n_jobs)]
        stop_s = self._settings.shutdown_grace_s + _CLOSING_S
        api = python_command("waystation.cli", "serve", *shared, "--fd", str(self._sock.fileno()))
        work = python_command("waystation.cli", "worker", *shared, *jobs, "--worker-id")
        # The lock is theirs too: it is free when the last of them is gone.
        fds = [self._lock.fd, self._sock.fileno()]
        return [
            Role(name="api", command=api, stop_s=stop_s, environ=self._environ, pass_fds=fds),
            *(
                # A worker of the same name is dead when the next one starts: its runs go on without waiting for leases.
                Role(
                    name=name,
                    command=[*work, stable_worker_id(name, self._root)],
                    stop_s=stop_s,
                    environ=self._environ,
                    pass_fds=fds[:1],
                )
                for name in self._worker_names()
            ),
        ]

    def _worker_names(self) -> list[str]:
        return [f"worker-{number}" for number in range(1, self._options.workers + 1)]

    def _greet(self) -> None:
        url = url_of(self._sock)
        self._lock.announce(Holder("up", os.getpid(), url, ready=True))
        graphs = {graph_id: spec.description for graph_id, spec in self._project.graphs.items()}
        stores = _stores(self._settings, self._options)
        notes = [f"Runs     {self._options.workers} worker process(es) beside the API's; {stores}"]
        say(banner.ready(url, graphs, seconds=time.monotonic() - self._started_at, notes=notes))

    async def _replace_on_changes(self) -> None:
        async for files in changes({self._project.root, *self._project.folders}, _configuration(self._project)):
            names = ", ".join(sorted(path.name for path in files))
            say(f"\n{paint('Changed:', 'bold')} {names}; restarting")
            await self._fleet.replace([*self._worker_names(), "api"])

    async def _end(self) -> None:
        started = self._fleet.names
        await self._fleet.stop([name for name in started if name.startswith("worker")])
        await self._fleet.stop([name for name in started if name == "api"])
        await self._fleet.stop()
        await self._postgres.stop()


async def _until_ok(host: str, port: int) -> None:
    """Until the API answers; it may take as long as the imports of the graphs."""
    while not await _is_ok(host, port):  # noqa: ASYNC110  # nobody tells of it
        await asyncio.sleep(0.1)


async def _is_ok(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_READY_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /ok HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _configuration(project: Project) -> list[Path]:
    env = project.raw.get("env")
    files = [project.config_path] if project.config_path else []
    return [*files, project.root / env] if isinstance(env, str) else files


def _stores(settings: Settings, options: UpOptions) -> str:
    postgres = "your Postgres" if options.postgres_uri or settings.database_uri else "Postgres in .waystation/"
    if settings.redis_uri is not None:
        return f"{postgres}, your Redis"
    return f"{postgres}, {'a Redis beside it' if project_redis.find_binary() else 'no Redis: events through Postgres'}"
