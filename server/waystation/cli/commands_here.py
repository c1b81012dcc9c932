"""`dev`, `up`, `down` and `doctor`: the commands for a project on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import (
    Certificate,
    Config,
    Docker,
    Host,
    Jobs,
    Key,
    Level,
    LogLevel,
    tls_files,
)


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
        tls_files(ssl_certfile, ssl_keyfile)
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


def down(
    config: Config = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until everything is gone.")] = 200,
) -> None:
    """Stop what serves this project, as Ctrl-C would: runs finish or hand over."""
    with told_briefly():
        from waystation.cli import detached
        from waystation.cli.project_files import root_of

        detached.stop(root_of(config), timeout_s=timeout)


def doctor(
    config: Config = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that should be free.")] = 2024,
    production: Annotated[
        bool, typer.Option("--production", help="Also what production needs: auth, secrets, retention, connections.")
    ] = False,
    apis: Annotated[int, typer.Option(min=0, help="API processes at most, with --production.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes at most, with --production.")] = 1,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
) -> None:
    """Check what a server needs here: Python, Postgres, Redis, graphs, a port. Exit code 1 when something fails.

    \b
    Before going live, with the environment that the processes will have:
      waystation doctor --production --apis 10 --workers 6
    """
    with told_briefly():
        from waystation.cli.check_production import Fleet
        from waystation.cli.doctor import run

        run(config, port=port, fleet=Fleet(apis=apis, workers=workers) if production else None, strict=strict)
