"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from waystation.cli.failures import UsageError


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


def tls_files(certfile: Path | None, keyfile: Path | None) -> tuple[Path, Path] | None:
    if certfile is not None and keyfile is not None:
        return certfile, keyfile
    if certfile is None and keyfile is None:
        return None
    raise UsageError("--ssl-certfile and --ssl-keyfile belong together: give both")
