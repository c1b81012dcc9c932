"""Where SQL files become statements: named blocks of queries/*.sql, loaded once and typed `LiteralString`.

A block is a `-- name: claim_next` line, a sentence on what the statement does, and the statement with `%(param)s`
placeholders. Whole-line comments are not sent to the server, so they may contain a percent sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name:\s*(\S+)\s*$", re.MULTILINE)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*\Z")


class Queries(Mapping[str, LiteralString]):
    """The statements of one file, as items and as attributes; an unknown name is an error where it is written."""

    def __init__(self, file: str, statements: dict[str, LiteralString]) -> None:
        self._file = file
        self._statements = statements

    def __getitem__(self, name: str) -> LiteralString:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"queries/{self._file}.sql has no statement named {name!r}") from None

    def __getattr__(self, name: str) -> LiteralString:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


@cache
def load(file: str) -> Queries:
    """Return the statements of queries/`file`.sql. Raises ValueError when the file is malformed or not there.

    Read what you need at import (`_CLAIM = load("runs")["claim_next"]`), so that a wrong name stops the start.
    """
    source = files("waystation_db") / "queries" / f"{file}.sql"
    if not source.is_file():
        raise ValueError(f"there is no queries/{file}.sql")
    return Queries(file, parse(source.read_text(encoding="utf-8"), source=f"queries/{file}.sql"))


def parse(text: str, source: str) -> dict[str, LiteralString]:
    """Split the text of a query file into its statements by name. Raises ValueError naming `source` if malformed."""
    preamble, *parts = _NAME.split(text)
    if _statement(preamble):
        raise ValueError(f"{source}: a statement stands before the first `-- name:` line")
    statements: dict[str, LiteralString] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if not _IDENTIFIER.match(name):
            raise ValueError(f"{source}: {name!r} is not a lower-case identifier")
        if name in statements:
            raise ValueError(f"{source}: {name} is there twice")
        statement = _statement(body)
        if not statement:
            raise ValueError(f"{source}: {name} has no statement")
        # The text comes from our own package and never from data: that is what LiteralString stands for.
        statements[name] = cast(LiteralString, statement)
    return statements


def _statement(body: str) -> str:
    lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().rstrip(";").rstrip()
