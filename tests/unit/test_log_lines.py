"""Every line of the log is strict JSON, whatever is logged or printed, and logging fails nobody."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Generator
from typing import Any

import pytest

from waystation.telemetry.logs import bind_run, configure_logs

log = logging.getLogger("a.graph")


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@contextlib.contextmanager
def logged(**options: Any) -> Generator[list[dict[str, Any]]]:
    """The lines that the block writes, after it; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    lines: list[dict[str, Any]] = []
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            configure_logs(as_json=True, **options)
            yield lines
        lines += [json.loads(line, parse_constant=_refuse) for line in output.getvalue().splitlines()]
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def itself() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["again"] = made
    return made


def deep() -> list[Any]:
    made: list[Any] = []
    for _ in range(100_000):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        ([1.5, float("-inf")], [1.5, "-inf"]),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        ({"deep": {4: [Broken()]}}, {"deep": {"4": ["<Broken without a repr>"]}}),
        (itself(), {"again": "…"}),
        ("😀, half: \ud83d, spelled: \\ud83d", "😀, half: \ufffd, spelled: \\ud83d"),
        ("a\nb\r\n\x1b[31m\u2028", "a\nb\r\n\x1b[31m\u2028"),
    ],
    ids=("nan", "infinity", "keys", "no repr", "itself", "surrogates", "newlines"),
)
def test_any_value_has_a_line_of_strict_json(value: object, shown: object) -> None:
    with logged() as lines:
        log.info("said", extra={"value": value})
    (line,) = lines
    assert (line["event"], line["value"]) == ("said", shown)


@pytest.mark.parametrize("redact", [(), ("email",)])
def test_a_line_that_cannot_be_made_is_told_of_and_nobody_fails(redact: tuple[str, ...]) -> None:
    with bind_run(run_id="r", thread_id="t", attempt=2), logged(redact=redact) as lines:
        log.info("%d of a@b.example", "x")
        log.info("%s", Broken())
        log.info("nested", extra={"value": deep()})
        log.info(10**5000)
    assert [line["run_id"] for line in lines] == ["r"] * 4
    assert lines[0]["event"] == "A log line could not be made"
    assert lines[0]["template"] == ("%d of [EMAIL]" if redact else "%d of a@b.example")
    assert lines[0]["where"].startswith(__file__)


def test_what_is_printed_and_warned_of_are_lines_with_the_ids_of_their_run() -> None:
    with bind_run(run_id="r", thread_id="t", attempt=1), logged(level="ERROR") as lines:
        print("begun", end=" ")  # noqa: T201  # as graphs do
        log.error("between")
        print('and ended\n{"event": "forged"}\n')  # noqa: T201
        print("100 %s")  # noqa: T201
    told = [(line["logger"], line["event"], line["run_id"]) for line in lines]
    assert told == [
        ("a.graph", "between", "r"),
        ("printed", "begun and ended", "r"),
        ("printed", '{"event": "forged"}', "r"),
        ("printed", "100 %s", "r"),
    ]


def test_warnings_are_lines() -> None:
    with warnings.catch_warnings(), logged() as lines:
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [(line["logger"], line["level"]) for line in lines] == [("py.warnings", "warning")]


def test_names_of_members_are_redacted_too() -> None:
    with logged(redact=("email",)) as lines:
        log.info("by address", extra={"counts": {"a@b.example": {"c@d.example": 1}}})
    assert lines[0]["counts"] == {"[EMAIL]": {"[EMAIL]": 1}}
