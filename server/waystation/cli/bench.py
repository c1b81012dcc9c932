"""`waystation bench`: puts a load on a server and reports."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from waystation.cli.bench_answers import RunFailed
from waystation.cli.bench_load import Load, Outcome, Sample, drive, reach
from waystation.cli.bench_report import as_json, as_page, lines, summary
from waystation.cli.failures import CommandError, UsageError
from waystation.cli.terminal import say


def bench_server(load: Load, *, reports: list[Path], max_error_rate: float, progress: bool) -> None:
    """Measure, print and write the reports.

    Raises:
        UsageError: a report's name says no format, its place cannot be written, or what draws it is not installed.
        CommandError: the server cannot be measured, more runs failed than allowed, or a report is lost.
    """
    for report in reports:
        _check_place(report)
    written_by = {report: _writer_of(report) for report in reports}
    try:
        info, outcome = asyncio.run(_measured(load, progress=progress))
    except RunFailed as error:
        raise CommandError(str(error)) from None
    found, at = summary(outcome), datetime.now(UTC).isoformat(timespec="seconds")
    for line in lines(load, found):
        say(line)
    lost = [error for report in reports if (error := _write(report, written_by[report](load, outcome, info, at=at)))]
    if lost:
        raise CommandError("; ".join(lost))
    if found.error_rate > max_error_rate or not found.runs:
        raise CommandError(f"{found.failed} of {found.runs} runs failed; --max-error-rate allows {max_error_rate:.1%}")


async def _measured(load: Load, *, progress: bool) -> tuple[dict[str, Any], Outcome]:
    info = await reach(load)
    stop = asyncio.Event()
    # Ctrl-C ends the load; what was measured until then is reported.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if load.runs is None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task(load.graph, total=load.runs if load.runs is not None else load.seconds)
        failed = 0

        def told(sample: Sample) -> None:
            nonlocal failed
            failed += sample.error is not None
            where = f"{load.graph}, {failed} failed"
            if load.runs is not None:
                bar.update(task, advance=1, description=where)
            else:
                bar.update(task, completed=sample.due_s + sample.total_s, description=where)

        return info, await drive(load, on_sample=told, stop=stop)


def _check_place(report: Path) -> None:
    """Known before an hour of load, and not after it."""
    if report.suffix not in (".html", ".json", ".png"):
        raise UsageError(f"--report {report}: expected a name that ends with .html, .json or .png")
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        is_folder = report.is_dir()
    except OSError as error:
        raise UsageError(f"--report {report}: {error.strerror}") from None
    if is_folder or not os.access(report if report.exists() else report.parent, os.W_OK):
        raise UsageError(f"--report {report}: expected a file that may be written")


class _Writer(Protocol):
    """Makes a report's bytes of what was measured."""

    def __call__(self, load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> bytes: ...


def _writer_of(report: Path) -> _Writer:
    """Raises UsageError: what it takes is not installed."""
    if report.suffix == ".png":
        # Imported here: matplotlib is an extra.
        from waystation.cli.bench_picture import as_picture

        return as_picture
    return _json if report.suffix == ".json" else _page


def _json(load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> bytes:
    told = as_json(load, outcome, info, at=at)
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def _page(load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> bytes:
    return as_page(load, outcome, info, at=at).encode()


def _write(report: Path, data: bytes) -> str | None:
    """None, or why it could not be written: the other reports are."""
    try:
        report.write_bytes(data)
    except OSError as error:
        return f"{report} cannot be written: {error.strerror}"
    say(f"  report: {report}")
    return None
