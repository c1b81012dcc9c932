"""`waystation bench`: load for a server, of the user's own choosing."""

from __future__ import annotations

import json
import re
import sys
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

import typer

from waystation.cli.failures import UsageError, told_briefly

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HELLO = '{"messages": [{"role": "user", "content": "hello"}]}'


def bench(
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:2024",
    graph: Annotated[str, typer.Option("--graph", "-g", help="Graph, or UUID of an assistant.")] = "agent",
    given_input: Annotated[str, typer.Option("--input", help="The runs' input: JSON, or @file.")] = HELLO,
    given_config: Annotated[str, typer.Option("--run-config", help="The runs' config: JSON, or @file.")] = "{}",
    mode: Annotated[
        Literal["wait", "stream", "background"],
        typer.Option(help="Wait for the values, read the stream, or create and join."),
    ] = "wait",
    threads: Annotated[
        Literal["none", "one", "new"],
        typer.Option(help="Runs without a thread, on one thread per client, or on a new one each."),
    ] = "none",
    clients: Annotated[int, typer.Option("--clients", "-n", min=1, max=5000, help="Requests at a time.")] = 16,
    runs: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="So many runs.", show_default="200, without --seconds")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="So long.", show_default="no limit")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Runs that become due per second, whether earlier ones are over or not.",
            show_default="each client's next when its last is over",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a run counts as failed.")] = 120.0,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="`name: value`, sent with every request.")
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Also write plots as a .html page or a .png, or every run as .json.")
    ] = None,
    max_error_rate: Annotated[float, typer.Option(min=0, max=1, help="More failed runs make the exit code 1.")] = 0.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the threads that were made.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar, on a terminal.")] = True,
) -> None:
    """Measure a running server: any that speaks the LangGraph Platform API, Waystation or not.

    A run is measured from when it was due to its last byte. One run before the measurement shows that it can work.
    Ctrl-C ends it early and reports what was measured.

    \b
    Examples:
      waystation bench --graph agent --clients 32 --runs 500
      waystation bench --mode stream --rate 50 --seconds 60 --report bench.html
      waystation bench --url https://agents.example.com -H "x-api-key: ..." --threads new
    """
    with told_briefly():
        from waystation.cli.bench import bench_server
        from waystation.cli.bench_load import Load

        load = Load(
            url=_address(url),
            graph=graph,
            mode=mode,
            threads=threads,
            input=_json("--input", given_input),
            config=_object("--run-config", given_config),
            headers=dict(_header(one) for one in header or ()),
            clients=clients,
            runs=200 if runs is None and seconds is None else runs,
            seconds=seconds and _finite("--seconds", seconds),
            rate=rate and _finite("--rate", rate),
            timeout_s=_finite("--timeout", timeout),
            keep=keep,
        )
        bench_server(
            load,
            reports=report or [],
            max_error_rate=_finite("--max-error-rate", max_error_rate),
            progress=progress and sys.stderr.isatty(),
        )


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url}: it begins neither with http:// nor with https://")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--url {url}: {error}") from None
    if not parts.hostname or port == 0:
        raise UsageError(f"--url {url}: it names no {'host' if not parts.hostname else 'port'}")
    if parts.query or parts.fragment:
        raise UsageError(f"--url {url}: expected no query and no fragment")
    return url.rstrip("/")


def _finite(option: str, value: float) -> float:
    """Click's ranges let `nan` pass, which compares with nothing: no run would ever be late, or one too many."""
    if not isfinite(value):
        raise UsageError(f"{option} {value}: expected a finite number")
    return value


def _json(option: str, text: str) -> Any:
    try:
        read = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return json.loads(read, parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageError(f"{option} {text}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{option} is not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _object(option: str, text: str) -> dict[str, Any]:
    value = _json(option, text)
    if not isinstance(value, dict):
        raise UsageError(f"{option} must be a JSON object")
    return cast("dict[str, Any]", value)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    # Without the value: it may be a key.
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise UsageError(f"--header {name!r}: expected `name: value`")
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"--header {name!r}: its value may hold printable ASCII only")
    return name, value
