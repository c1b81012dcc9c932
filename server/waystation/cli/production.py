"""`waystation serve` and `waystation worker`: the processes of an installation, one by one."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from waystation.catalog.project import Project, configure
from waystation.cli import banner
from waystation.cli.listening import bind, url_of
from waystation.cli.serving import Serving, Tls, run, serve
from waystation.cli.terminal import say
from waystation.config import Settings
from waystation.process import database_uri
from waystation.telemetry.logs import configure_logs
from waystation_db.migrate import check


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessOptions:
    """The command line. `port` None: no HTTP. `fd`: a socket inherited from a supervisor, instead of host and port.
    `worker_id`: a name that this process has from its supervisor, which knows that its bearer before is dead.
    """

    config: Path | None
    n_jobs: int | None
    log_level: str | None
    host: str = "0.0.0.0"
    port: int | None = None
    fd: int | None = None
    tls: Tls | None = None
    supervised: bool = False
    worker_id: str | None = None


def serve_api(options: ProcessOptions, *, with_worker: bool) -> NoReturn:
    """Serve the API; with a worker in the same process, or with workers elsewhere."""
    settings, project = configured(options.config, log_level=options.log_level)
    if not with_worker:
        settings = settings.model_copy(update={"n_jobs_per_worker": 0})
    _run(options, settings, project, api=True)


def work(options: ProcessOptions) -> NoReturn:
    """Execute runs; answer health checks where a port is given."""
    settings, project = configured(options.config, log_level=options.log_level)
    _run(options, settings, project, api=False)


def configured(config: Path | None, *, log_level: str | None = None) -> tuple[Settings, Project]:
    """The settings and the project, with the logs set up as they say. Raises ConfigError."""
    settings, project = configure(config, root=Path.cwd())
    if log_level is not None:
        settings = settings.model_copy(update={"log_level": log_level})
    is_terminal = sys.stdout.isatty()
    configure_logs(
        level=settings.log_level,
        as_json=not is_terminal if settings.log_json is None else settings.log_json,
        color=settings.log_color and is_terminal,
        redact=settings.log_redact,
    )
    return settings, project


def _run(options: ProcessOptions, settings: Settings, project: Project, *, api: bool) -> NoReturn:
    if options.n_jobs is not None and settings.n_jobs_per_worker:
        settings = settings.model_copy(update={"n_jobs_per_worker": options.n_jobs})
    uri = database_uri(settings)
    sock = _socket(options, prefix="" if api else "health-")
    if not options.supervised:  # the supervisor has told them
        banner.warnings(project.warnings)
    url = url_of(sock, https=options.tls is not None) if sock else ""
    serving = Serving(
        settings=settings,
        project=project,
        grace_s=settings.shutdown_grace_s,
        sock=sock,
        api=api,
        # Only the operator knows that there are no others on this database, and says so by this setting.
        alone=api and settings.n_jobs_per_worker > 0 and settings.event_log == "memory",
        tls=options.tls,
        supervised=options.supervised,
        worker_id=options.worker_id,
        take_over=options.worker_id is not None,
        before=lambda: check(uri),
        tells_start=not options.supervised and options.tls is None,
        on_ready=lambda: say(f"Serving at {url}") if url and not options.supervised else None,
    )

    run(serve(serving), debug=settings.log_level == "DEBUG")


def _socket(options: ProcessOptions, *, prefix: str) -> socket.socket | None:
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    if options.port is None:
        return None
    return bind(options.host, options.port, prefix=prefix)
