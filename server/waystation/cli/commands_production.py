"""`serve`, `worker` and `migrate`: the commands of an installation."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import (
    Certificate,
    Config,
    Host,
    Inherited,
    Jobs,
    Key,
    Level,
    LogLevel,
    Name,
    Supervised,
    tls_files,
)


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
        files = tls_files(ssl_certfile, ssl_keyfile)
        from waystation.cli.production import ProcessOptions, serve_api
        from waystation.cli.serving import Tls

        options = ProcessOptions(
            config=config,
            host=host,
            port=port,
            n_jobs=n_jobs,
            log_level=log_level and log_level.value,
            fd=fd,
            tls=files and Tls(*files),
            supervised=supervised,
        )
        serve_api(options, with_worker=with_worker)


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


def migrate(
    config: Config = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what each step does and locks; change nothing.")] = False,
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


def encrypt(
    config: Config = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only count what would be rewritten.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Rewrite it.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what is encrypted with the current key or handlers.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rows to read at a time.")] = 200,
) -> None:
    """Encrypt what was stored plain or with another key, with the first key of WAYSTATION_ENCRYPTION_KEYS.

    It may run beside the server, be stopped at any time and run again: what is done stays done. Exit code 1: some
    values cannot be decrypted with the keys that are here; they stay as they are.

    \b
    Examples:
      waystation encrypt --plan
      WAYSTATION_ENCRYPTION_KEYS=new:...,old:... waystation encrypt --apply
    """
    with told_briefly():
        if plan == apply:
            raise UsageError("say --plan or --apply")
        from waystation.cli.encrypting import run

        if not run(config, apply=apply, again=again, batch=batch):
            raise typer.Exit(1)
