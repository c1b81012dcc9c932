"""The commands and their options; what they do is in the modules beside this one, imported when a command runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from waystation import __version__
from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.terminal import say

app = typer.Typer(
    name="waystation",
    help="""Serve LangGraph graphs behind the LangGraph Platform API, on your own Postgres.

\b
Begin in a folder with a langgraph.json:
  waystation dev                       serve it at http://127.0.0.1:2024, nothing else needed
  waystation up                        API and workers as processes of their own, at port 8123
  waystation doctor                    what is missing on this machine, and what to do about it

\b
In production, with DATABASE_URI set:
  waystation migrate                   bring the schema to this version
  waystation serve --with-worker       one process that does everything
  waystation serve, waystation worker  any number of each; REDIS_URI for live events between them

`waystation COMMAND --help` says more.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The project's langgraph.json.", show_default="langgraph.json here"),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--n-jobs-per-worker",
        min=1,
        max=10_000,
        help="Runs a worker executes at a time.",
        show_default="N_JOBS_PER_WORKER, else 10",
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is all of this machine's.")]
Level = Annotated[
    LogLevel | None,
    typer.Option(
        "--log-level",
        "--server-log-level",
        case_sensitive=False,
        help="Least severe level that is logged.",
        show_default="LOG_LEVEL, else INFO",
    ),
]


Certificate = Annotated[
    Path | None, typer.Option("--ssl-certfile", exists=True, dir_okay=False, help="Certificate, to serve HTTPS.")
]
Key = Annotated[Path | None, typer.Option("--ssl-keyfile", exists=True, dir_okay=False, help="Its key.")]
T = TypeVar("T")
Docker = Annotated[T | None, typer.Option(hidden=True)]
Inherited = Annotated[int | None, typer.Option("--fd", hidden=True)]
Name = Annotated[str | None, typer.Option("--worker-id", hidden=True)]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


def _version(wanted: bool) -> None:
    if wanted:
        say(f"waystation {__version__}")
        raise typer.Exit


@app.callback()
def waystation(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel=None)
def dev(
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 2024,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="One process, not restarted on changes.")] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the documentation.")] = False,
    n_jobs: Jobs = None,
    log_level: Level = None,
    ssl_certfile: Certificate = None,
    ssl_keyfile: Key = None,
    debug_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Let a debugger attach here (needs debugpy).")
    ] = None,
    wait_for_client: Annotated[bool, typer.Option("--wait-for-client", help="Start when it has attached.")] = False,
    studio_url: Annotated[str | None, typer.Option(help="Show a link to a Studio at this address.")] = None,
    allow_blocking: Annotated[
        bool,
        typer.Option("--allow-blocking", help="Accepted: blocking code never raises here."),
    ] = False,
    tunnel: Annotated[bool, typer.Option("--tunnel", hidden=True)] = False,
) -> None:
    """Serve the project for development: its own Postgres, hot reload, everything in .waystation/.

    Uses DATABASE_URI if it is set, else starts a Postgres. Restarts at every change of a .py file, langgraph.json or
    the env file. Killed or stopped, it goes on with the runs that were under way when it is started again.

    \b
    Examples:
      waystation dev
      waystation dev -c path/to/langgraph.json --port 2025 --no-browser
    """
    from waystation.cli.dev import DevOptions, run

    with told_briefly(debug=log_level is LogLevel.DEBUG):
        if tunnel:
            raise UsageError(
                "--tunnel is not offered: it opens your graphs to the internet. Lead a tunnel of your own to the port"
            )
        _tls_files(ssl_certfile, ssl_keyfile)
        run(
            DevOptions(
                config=config,
                host=host,
                port=port,
                reload=not no_reload,
                browser=not no_browser,
                n_jobs=n_jobs,
                log_level=log_level and log_level.value,
                certfile=ssl_certfile,
                keyfile=ssl_keyfile,
                debug_port=debug_port,
                wait_for_client=wait_for_client,
                studio_url=studio_url,
            )
        )


@app.command()
def up(
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port to listen on.")] = 8123,
    postgres_uri: Annotated[
        str | None,
        typer.Option(help="Postgres to use.", show_default="DATABASE_URI, else one of the project's own"),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "--n-workers", min=1, max=64, help="Worker processes; one per core is plenty.")
    ] = 1,
    n_jobs: Jobs = None,
    watch: Annotated[bool, typer.Option("--watch", help="Restart the processes when the code changes.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is ready, and leave it running (`waystation down` ends it).")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="The same as --log-level debug.")] = False,
    log_level: Level = None,
    image: Docker[str] = None,
    base_image: Docker[str] = None,
    api_version: Docker[str] = None,
    engine_runtime_mode: Docker[str] = None,
    debugger_port: Docker[int] = None,
    debugger_base_url: Docker[str] = None,
    docker_compose: Annotated[Path | None, typer.Option("--docker-compose", "-d", hidden=True)] = None,
    pull: Annotated[bool | None, typer.Option("--pull/--no-pull", hidden=True)] = None,
    recreate: Annotated[bool | None, typer.Option("--recreate/--no-recreate", hidden=True)] = None,
) -> None:
    """Serve the project as in production on this machine: API and workers in processes of their own, without Docker.

    Postgres and Redis from DATABASE_URI and REDIS_URI, else started here, with data in .waystation/. A process that
    dies is started again; its runs go on after their last committed step.

    \b
    Examples:
      waystation up
      waystation up --workers 2 --port 8000 --wait
      waystation up --postgres-uri postgres://user:password@db.example.com/app
    """
    level = "DEBUG" if verbose else log_level and log_level.value
    refused = {
        "--image": image,
        "--base-image": base_image,
        "--api-version": api_version,
        "--engine-runtime-mode": engine_runtime_mode,
        "--debugger-port": debugger_port,
        "--debugger-base-url": debugger_base_url,
        "--docker-compose": docker_compose,
        "--pull": pull,
        "--recreate": recreate,
    }
    with told_briefly(debug=level == "DEBUG"):
        for name, value in refused.items():
            if value is not None:
                raise UsageError(f"{name} is about Docker containers, and `waystation up` runs processes: leave it out")
        if wait:
            from waystation.cli import detached
            from waystation.cli.project_files import root_of

            detached.start([argument for argument in sys.argv[2:] if argument != "--wait"], root_of(config))
            return
        from waystation.cli.up import UpOptions, run

        run(
            UpOptions(
                config=config,
                host=host,
                port=port,
                postgres_uri=postgres_uri,
                workers=workers,
                n_jobs=n_jobs,
                watch=watch,
                log_level=level,
            )
        )


@app.command()
def down(
    config: Config = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until everything is gone.")] = 200,
) -> None:
    """Stop what serves this project, as Ctrl-C would: runs finish or hand over."""
    with told_briefly():
        from waystation.cli import detached
        from waystation.cli.project_files import root_of

        detached.stop(root_of(config), timeout_s=timeout)


@app.command()
def serve(
    config: Config = None,
    host: Host = "0.0.0.0",
    port: Annotated[int, typer.Option(min=0, max=65535, envvar="PORT", help="Port to listen on.")] = 8000,
    with_worker: Annotated[bool, typer.Option("--with-worker", help="Execute runs in this process too.")] = False,
    n_jobs: Jobs = None,
    log_level: Level = None,
    ssl_certfile: Certificate = None,
    ssl_keyfile: Key = None,
    fd: Inherited = None,
    supervised: Supervised = False,
) -> None:
    """Serve the API in production: needs DATABASE_URI with a migrated schema.

    Runs are executed by `waystation worker` processes, or here with --with-worker. SIGTERM: not ready any more, runs
    finish or hand over within BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS, streams are dropped so that clients reconnect
    elsewhere, exit code 0. A second SIGTERM hands over at once.

    \b
    Examples:
      DATABASE_URI=postgres://... waystation serve --with-worker
      DATABASE_URI=postgres://... REDIS_URI=redis://... waystation serve --port 8000
    """
    with told_briefly(debug=log_level is LogLevel.DEBUG):
        tls_files = _tls_files(ssl_certfile, ssl_keyfile)
        from waystation.cli.production import ProcessOptions, serve_api
        from waystation.cli.serving import Tls

        options = ProcessOptions(
            config=config,
            host=host,
            port=port,
            n_jobs=n_jobs,
            log_level=log_level and log_level.value,
            fd=fd,
            tls=tls_files and Tls(*tls_files),
            supervised=supervised,
        )
        serve_api(options, with_worker=with_worker)


@app.command()
def worker(
    config: Config = None,
    n_jobs: Jobs = None,
    health_host: Annotated[str, typer.Option(help="Address for health checks.")] = "0.0.0.0",
    health_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Answer /ok, /health, /ready and /metrics here.", show_default="no HTTP"),
    ] = None,
    log_level: Level = None,
    supervised: Supervised = False,
    worker_id: Name = None,
) -> None:
    """Execute runs in production, for any number of `waystation serve` processes on the same DATABASE_URI.

    SIGTERM: claims nothing more, runs finish or hand over to another worker, exit code 0.

    \b
    Example:
      DATABASE_URI=postgres://... REDIS_URI=redis://... waystation worker --n-jobs-per-worker 20 --health-port 8001
    """
    with told_briefly(debug=log_level is LogLevel.DEBUG):
        from waystation.cli.production import ProcessOptions, work

        work(
            ProcessOptions(
                config=config,
                host=health_host,
                port=health_port,
                n_jobs=n_jobs,
                log_level=log_level and log_level.value,
                supervised=supervised,
                worker_id=worker_id,
            )
        )


@app.command()
def migrate(
    config: Config = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is pending; change nothing.")] = False,
    phase: Annotated[
        Literal["pre", "post"] | None,
        typer.Option(help="Only what is safe before (pre) or after (post) the rollout.", show_default="both"),
    ] = None,
) -> None:
    """Bring the database's schema to this version. `dev` and `up` do it themselves.

    \b
    A rollout without downtime:
      waystation migrate --phase pre     while the old version serves
      (replace the processes)
      waystation migrate --phase post    when the old version is gone
    """
    with told_briefly():
        from waystation.cli.migrating import run

        run(config, plan=plan, phase=phase)


@app.command()
def doctor(
    config: Config = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that should be free.")] = 2024,
) -> None:
    """Check what a server needs here: Python, Postgres, Redis, the graphs, the port. Exit code 1 when something fails."""
    with told_briefly():
        from waystation.cli.doctor import run

        run(config, port=port)


def _tls_files(certfile: Path | None, keyfile: Path | None) -> tuple[Path, Path] | None:
    if certfile is not None and keyfile is not None:
        return certfile, keyfile
    if certfile is None and keyfile is None:
        return None
    raise UsageError("--ssl-certfile and --ssl-keyfile belong together: give both")
