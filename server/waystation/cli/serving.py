"""A process that serves or executes, from its opening to its end.

    open_process ──▶ listen ──▶ first signal: not ready, runs finish or hand over, streams are dropped, close
                                second signal: what runs is put back in the queue at once
                                third signal: exit

Signals during the opening break it off. Two things end a process that cannot close: the second signal, and a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import uvloop

from waystation.api.frame import Application
from waystation.api.server import ApiServer
from waystation.app import attach_inside, create_app
from waystation.catalog import Project
from waystation.cli.failures import UNAVAILABLE, GraphsError, told_briefly
from waystation.cli.health import create_health_app
from waystation.cli.interpreter import keep_heap, share_fairly
from waystation.cli.starting import answered_while_starting
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation.process import Process, database_uri, log_kind, open_process

_CLOSING_S = 10.0
"""How long connections and threads may take to close, after everything that matters is written down."""
_HURRY_S = 2.0
_LINGER_S = 1.0
"""For so long a process that is done answers clients that still hold connections, so that they leave them."""
_PARENT_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate and of its key."""

    certfile: Path
    keyfile: Path


async def nothing() -> None:
    """What is to be done first where nothing is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """What one process does. Without `sock` it answers no HTTP; with `api` it serves everything, else health only.

    `grace_s`: how long the process may go on after the first signal. `supervised`: Ctrl-C is the parent's business, and
    the process ends with its parent. `before` is awaited before anything is opened; `tells_start`: until all is open,
    probes are told that the process starts.
    """

    settings: Settings
    project: Project
    grace_s: float
    sock: socket.socket | None = None
    api: bool = True
    alone: bool = False
    tls: Tls | None = None
    worker_id: str | None = None
    take_over: bool = False
    supervised: bool = False
    on_ready: Callable[[], None] = lambda: None
    before: Callable[[], Awaitable[None]] = nothing
    tells_start: bool = False

    @property
    def drain_s(self) -> float:
        """How long runs may go on: less than the process, for cancelling what is left and closing take time too."""
        return max(self.grace_s / 2, self.grace_s - self.settings.abandon_s - _CLOSING_S)


def run(
    main: Coroutine[None, None, None], *, debug: bool = False, at_end: Callable[[], None] = lambda: None
) -> NoReturn:
    """Run a process's main task on a loop of uvloop, then end the process; its errors are told in one line."""
    code = UNAVAILABLE
    try:
        with told_briefly(debug=debug), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else UNAVAILABLE
    except KeyboardInterrupt:
        code = 0
    except BaseException:  # the boundary of the process
        traceback.print_exc()
    at_end()
    leave(code)


def leave(code: int = 0) -> NoReturn:
    """End the process without waiting for threads in which users' code may block for ever."""
    logging.shutdown()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


async def serve(serving: Serving) -> None:
    """Open everything, serve until a signal comes, close everything.

    Raises:
        ConfigError: no database, or an event log that this process cannot have.
        GraphsError: a graph cannot be loaded.
        DatabaseUnavailable: Postgres does not answer.
    """
    database_uri(serving.settings)
    log_kind(serving.settings, alone=serving.alone)
    shutdown = Shutdown(supervised=serving.supervised)
    with shutdown.installed():
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with answered_while_starting(serving.sock if serving.tells_start else None) as waiting:
                    await serving.before()
                    process = await stack.enter_async_context(_opened(serving))
                shutdown.opened()
                await _until_stopped(serving, process, shutdown, waiting)
                _exit_in(_CLOSING_S)
        except asyncio.CancelledError:
            if not shutdown.asked.is_set():
                raise


class Shutdown:
    """What the signals of a process ask for."""

    def __init__(self, *, supervised: bool) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        self._supervised = supervised
        self._opening = asyncio.current_task()

    @contextlib.contextmanager
    def installed(self) -> Generator[None]:
        """Hear the signals in this block."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.advance)
        # Ignored by a handler, not by SIG_IGN: programs that graphs start inherit the latter.
        loop.add_signal_handler(signal.SIGINT, (lambda: None) if self._supervised else self.advance)
        watching = asyncio.create_task(self._end_with_parent()) if self._supervised else None
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()

    def opened(self) -> None:
        """From now on the first signal ends the process gracefully."""
        self._opening = None

    def advance(self) -> None:
        """One signal more."""
        if not self.asked.is_set():
            self.asked.set()
            if self._opening is not None:
                self._opening.cancel()
                _exit_in(_HURRY_S)  # an import of the user's cannot be cancelled
        elif not self.hurry.is_set() and self._opening is None:
            self.hurry.set()
        else:
            leave(1)

    async def _end_with_parent(self) -> None:
        """Where the kernel does not do it (`tether.py`)."""
        parent = os.getppid()
        while os.getppid() == parent:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(_PARENT_S)
        leave(1)


@contextlib.asynccontextmanager
async def _opened(serving: Serving) -> AsyncGenerator[Process]:
    opening = open_process(
        serving.settings,
        serving.project,
        alone=serving.alone,
        worker_id=serving.worker_id,
        take_over=serving.take_over,
        api=serving.api and serving.sock is not None,
    )
    share_fairly()
    async with contextlib.AsyncExitStack() as stack:
        try:
            process = await stack.enter_async_context(opening)
        except ConfigError as error:
            raise GraphsError(error.message) from error
        keep_heap()
        yield process


async def _until_stopped(
    serving: Serving, process: Process, shutdown: Shutdown, waiting: Sequence[socket.socket]
) -> None:
    if serving.sock is None or not serving.api:
        attach_inside(process.services)
    if serving.sock is None:
        log.info("Worker started", extra={"slots": serving.settings.n_jobs_per_worker})
        serving.on_ready()
        await _drain_when_asked(serving, process, shutdown)
        return
    make = create_app if serving.api else create_health_app
    app = make(lambda: contextlib.nullcontext(process.services))
    server = _Server(serving, app, waiting)
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(_stop_when_asked(serving, process, shutdown, app, server))
        await server.serve(sockets=[serving.sock])
        stopping.cancel()


async def _stop_when_asked(
    serving: Serving, process: Process, shutdown: Shutdown, app: Application, server: ApiServer
) -> None:
    await shutdown.asked.wait()
    app.start_draining()
    await _drain_when_asked(serving, process, shutdown)
    if serving.api and not serving.supervised:  # who supervises has the socket, and the next process
        await server.let_go(at_most_s=_LINGER_S)
    server.stop()


async def _drain_when_asked(serving: Serving, process: Process, shutdown: Shutdown) -> None:
    await shutdown.asked.wait()
    _exit_in(max(serving.grace_s, _HURRY_S))
    log.info("Stopping: runs finish or hand over", extra={"at_most_s": serving.drain_s})
    draining = asyncio.create_task(_drain(process, serving.drain_s, spare_s=serving.settings.abandon_s + 6))
    hurrying = asyncio.create_task(shutdown.hurry.wait())
    await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        await _drain(process, 0, spare_s=_HURRY_S)
        leave(1)
    hurrying.cancel()


async def _drain(process: Process, grace_s: float, *, spare_s: float) -> None:
    """Whatever happens, the process goes on ending: the leases of what is left run out."""
    try:
        async with asyncio.timeout(grace_s + spare_s):
            await process.drain(grace_s)
    except TimeoutError:
        log.warning("Not every run could be handed over; the leases of the rest run out")
    except Exception:  # the boundary of the process's life
        log.exception("Handing over broke off; the leases of what ran run out")


def _exit_in(seconds: float) -> None:
    def cut_short() -> None:
        log.warning("Time is over: something blocks, the process ends without it")
        leave()

    timer = threading.Timer(seconds, cut_short)
    timer.daemon = True
    timer.start()


class _Server(ApiServer):
    """Leaves the signals to `Shutdown`, and tells when it serves."""

    def __init__(self, serving: Serving, app: Application, waiting: Sequence[socket.socket]) -> None:
        tls = serving.tls
        super().__init__(app, host="", port=0, certfile=tls and tls.certfile, keyfile=tls and tls.keyfile)
        self._on_ready, self._waiting = serving.on_ready, waiting

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for connection in self._waiting:
            await self.adopt(connection)
        self._on_ready()
