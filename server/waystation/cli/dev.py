"""`waystation dev`: a supervisor that owns the project's Postgres, its port and its lock, and the server it restarts.

    supervisor ──▶ embedded Postgres (shared by flock, ends with its users)
        │  ╰─────▶ watches the project's code
        ╰────────▶ server: one process with API and worker (`dev_server.py`), replaced at every change

Whatever is killed, nothing stays behind: the kernel ends the server with its supervisor, and Postgres with both. With
`--no-reload` there is no supervisor.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from waystation.cli import banner
from waystation.cli.children import Child, ending, python_command
from waystation.cli.dev_alone import run_alone
from waystation.cli.dev_link import Configured, DevOrder, configured_of
from waystation.cli.failures import GRAPHS, UNAVAILABLE, UNUSABLE, ChildFailed
from waystation.cli.listening import bind, url_of
from waystation.cli.project_files import require_project, root_of
from waystation.cli.project_lock import Holder, ProjectLock, stable_worker_id
from waystation.cli.project_postgres import ProjectPostgres
from waystation.cli.terminal import paint, say
from waystation.cli.watching import changes
from waystation.config import process_environment

_STOP_S = 12.0  # more than a server gives itself
_CRASHES, _CRASHES_WITHIN_S = 5, 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DevOptions:
    """The command line."""

    config: Path | None
    host: str
    port: int
    reload: bool
    browser: bool
    n_jobs: int | None
    log_level: str | None
    certfile: Path | None
    keyfile: Path | None
    debug_port: int | None
    wait_for_client: bool
    studio_url: str | None


def run(options: DevOptions) -> NoReturn:
    """Serve the project until it is stopped.

    Raises CommandError, ConfigError or DatabaseError when it cannot be begun.
    """
    started_at = time.monotonic()
    root = root_of(options.config)
    require_project(options.config, process_environment())
    with ExitStack() as stack:
        lock = ProjectLock.acquire(root)
        stack.callback(lock.release)
        sock = bind(options.host, options.port)
        order = _order(options, root, sock, lock, started_at)
        lock.announce(Holder("dev", os.getpid(), order.url))
        if not options.reload:
            run_alone(order, root, lock, browser=options.browser)
        code = asyncio.run(_Supervisor(order, root, sock, lock, browser=options.browser).run())
    raise SystemExit(code)


class _Supervisor:
    """Lives as long as the command. All of its state belongs to one loop."""

    def __init__(self, order: DevOrder, root: Path, sock: socket.socket, lock: ProjectLock, *, browser: bool) -> None:
        self._order = order
        self._root = root
        self._sock = sock
        self._lock = lock
        self._browser = browser
        self._postgres = ProjectPostgres(root)
        self._environ = dict(process_environment())
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._changed_files: set[Path] = set()
        self._watched: Configured | None = None
        self._watching: asyncio.Task[None] | None = None
        self._child: Child | None = None
        self._served = False
        self._crashes: list[float] = []
        self._signals = 0

    async def run(self) -> int:
        """Until it is told to stop, or the first server cannot start. Returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        try:
            while not self._stop.is_set():
                await self._one_life()
            say("Stopped.")
            return 0
        except ChildFailed as failed:
            return failed.exit_code
        finally:
            if self._watching is not None:
                self._watching.cancel()
            await self._postgres.stop()

    def _signalled(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._child is not None and self._signals > 1:
            # The server hears the first one from `stop`.
            self._child.ask_to_stop() if self._signals == 2 else self._child.kill()

    async def _one_life(self) -> None:
        """One server, from its start to its end; returns when there may be another one."""
        self._changed.clear()
        self._changed_files.clear()
        ours, theirs = socket.socketpair()
        order = replace(
            self._order,
            link_fd=theirs.fileno(),
            is_first=not self._served,
            started_at=self._order.started_at if not self._served else time.monotonic(),
        )
        command = python_command("waystation.cli.dev_server", order.as_json())
        fds = (order.listen_fd, order.lock_fd, order.link_fd)
        child = self._child = await Child.start(command, environ=self._environ, pass_fds=fds)
        theirs.close()
        talking = asyncio.create_task(self._talk(ours))
        try:
            await self._attend(child, talking)
        finally:
            child.kill()
            await child.ended()
            talking.cancel()
            await asyncio.wait([talking])

    async def _attend(self, child: Child, talking: asyncio.Task[None]) -> None:
        ended = asyncio.create_task(child.ended())
        signals = [asyncio.create_task(event.wait()) for event in (self._stop, self._changed)]
        pending: set[asyncio.Task[object]] = {ended, talking, *signals}  # pyright: ignore[reportAssignmentType]
        while not ended.done() and not any(task.done() for task in signals):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if talking.done() and (error := talking.exception()) is not None:
                raise error
        for task in signals:
            task.cancel()
        if not ended.done():
            if not self._stop.is_set():
                names = ", ".join(sorted(path.name for path in self._changed_files))
                say(f"\n{paint('Changed:', 'bold')} {names}; restarting")
            await child.stop(_STOP_S)
        elif not self._stop.is_set():
            await self._after(ended.result())

    async def _after(self, code: int) -> None:
        """The server ended by itself: go on at the next change, or at once, or not at all."""
        if not self._served:
            if code < 0:
                say(f"The server {ending(code)} while it was starting", err=True)
            raise ChildFailed(code if code > 0 else UNAVAILABLE)
        if code in (GRAPHS, UNUSABLE):
            say("Waiting for a change that mends it")
            await self._change_or_stop()
            return
        now = time.monotonic()
        self._crashes = [at for at in self._crashes if now - at < _CRASHES_WITHIN_S] + [now]
        say(f"{paint('The server', 'red')} {ending(code)}.", err=True)
        if len(self._crashes) > _CRASHES:
            say(f"That was the {len(self._crashes)}th time in a minute: waiting for a change", err=True)
            await self._change_or_stop()
            self._crashes.clear()
        else:
            say("Starting it again; its runs go on after their last committed step", err=True)

    async def _change_or_stop(self) -> None:
        waiting = [asyncio.create_task(event.wait()) for event in (self._stop, self._changed)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def _talk(self, sock: socket.socket) -> None:
        """Hear what the server says, and give it its Postgres."""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if message["event"] == "ready":
                    self._ready()
                    continue
                report = configured_of(message)
                self._watch(report)
                if report.needs_postgres:
                    answer = {"database_uri": await self._postgres.uri()}
                    writer.write(json.dumps(answer).encode() + b"\n")
        finally:
            writer.close()

    def _ready(self) -> None:
        if not self._served:
            self._lock.announce(Holder("dev", os.getpid(), self._order.url, ready=True))
            if self._browser:
                banner.open_browser(f"{self._order.url}/docs", self._environ)
        self._served = True

    def _watch(self, report: Configured) -> None:
        if self._watched == report:
            return
        self._watched = report
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(self._notice(report))

    async def _notice(self, report: Configured) -> None:
        async for files in changes(map(Path, report.folders), map(Path, report.files)):
            self._changed_files |= files
            self._changed.set()


def _order(options: DevOptions, root: Path, sock: socket.socket, lock: ProjectLock, started_at: float) -> DevOrder:
    return DevOrder(
        config=str(options.config.resolve()) if options.config else None,
        root=str(root),
        listen_fd=sock.fileno(),
        lock_fd=lock.fd,
        link_fd=-1,
        url=url_of(sock, https=options.certfile is not None),
        worker_id=stable_worker_id("dev", root),
        started_at=started_at,
        is_first=True,
        n_jobs=options.n_jobs,
        log_level=options.log_level,
        certfile=str(options.certfile.resolve()) if options.certfile else None,
        keyfile=str(options.keyfile.resolve()) if options.keyfile else None,
        debug_port=options.debug_port,
        wait_for_client=options.wait_for_client,
        studio_url=options.studio_url,
    )
