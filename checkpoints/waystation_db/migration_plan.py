"""What a pending migration will do: the locks its statements take, on which tables, and whether it may run under load.

Read from the statements themselves, so that nobody has to remember to write it down. A statement of a form that is not
known here counts as one to read first; a test sees to it that ours are all known. The locks are those that Postgres's
manual gives (13.3 and ALTER TABLE).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection

from waystation_db.migrate import Migration, Phase, Step, connected, migrations, name_of, pending_steps
from waystation_db.sql import load

Verdict = Literal["safe under load", "in a quiet hour", "read it first"]

_WORST_FIRST: tuple[Verdict, ...] = ("read it first", "in a quiet hour", "safe under load")

_sql = load("migrate")
_SIZES, _LONG, _EXISTING = _sql["sizes"], _sql["long_transactions"], _sql["existing_tables"]
_VERSIONS = _sql["checkpoint_version"], _sql["store_version"]

_INSTANT = "access exclusive, for an instant"
_SCANS = "access exclusive, while the whole table is read"
_REWRITES = "access exclusive, while the whole table is written anew"


@dataclass(frozen=True, slots=True)
class Effect:
    """What one statement does to a table that is there already. `lock` "" for none."""

    action: str
    table: str
    lock: str
    verdict: Verdict = "safe under load"


@dataclass(frozen=True, slots=True)
class Planned:
    """A pending step: what it is for, what it makes, what it does to what is there."""

    name: str
    about: str
    makes: tuple[str, ...]
    effects: tuple[Effect, ...]
    in_transaction: bool = True

    @property
    def verdict(self) -> Verdict:
        found = {effect.verdict for effect in self.effects}
        return next(one for one in _WORST_FIRST if one in found or one == "safe under load")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `migrate` would do now. `rows`: of the tables that it touches, roughly; -1 where nobody counted.
    `long_transactions` are open since `oldest_s` at most: locks may have to wait for them."""

    steps: tuple[Planned, ...]
    rows: dict[str, int]
    long_transactions: int
    oldest_s: float


async def plan(conninfo: str, *, phase: Phase | None = None, known: Sequence[Migration] | None = None) -> Plan:
    """Look at the database and say what `migrate` would do, changing nothing. Raises as `migrate` does."""
    async with connected(conninfo) as conn:
        steps = await pending_steps(conn, phase, migrations() if known is None else known)
        _, *langgraph = await (await conn.execute(_EXISTING)).fetchone() or (False, False, False)
        at = [await _reached(conn, one) if there else -1 for one, there in zip(_VERSIONS, langgraph, strict=True)]
        planned = tuple(_planned(step, at) for step in steps)
        touched = sorted({effect.table for one in planned for effect in one.effects if effect.table})
        rows = dict(await (await conn.execute(_SIZES, {"names": touched})).fetchall())
        count, oldest_s = await (await conn.execute(_LONG)).fetchone() or (0, 0.0)
    return Plan(planned, rows, count, oldest_s)


async def _reached(conn: AsyncConnection[Any], statement: LiteralString) -> int:
    row = await (await conn.execute(statement)).fetchone()
    return int(row[0]) if row else -1


def _planned(step: Step, at: Sequence[int]) -> Planned:
    match step:
        case "langgraph-checkpoints":
            return _of_langgraph(name_of(step), AsyncPostgresSaver.MIGRATIONS[at[0] + 1 :], "checkpoint tables")
        case "langgraph-store":
            return _of_langgraph(name_of(step), AsyncPostgresStore.MIGRATIONS[at[1] + 1 :], "store tables")
        case Migration():
            return described(step)


def _of_langgraph(name: str, statements: Sequence[str], what: str) -> Planned:
    made, effects = _effects(";\n".join(statements))
    return Planned(name, f"LangGraph's own {what}, by its own migrations.", made, effects, in_transaction=False)


def described(migration: Migration) -> Planned:
    """What a file does, whatever the state of a database."""
    made, effects = _effects(migration.text)
    return Planned(migration.name, _about(migration.text), made, effects, migration.in_transaction)


def _about(text: str) -> str:
    """The first comment of a file, up to the first line that is none."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("-- no-transaction"):
            continue
        if not line.startswith("--"):
            break
        lines.append(line[2:].strip())
    return " ".join(lines)


def _effects(text: str) -> tuple[tuple[str, ...], tuple[Effect, ...]]:
    statements = [" ".join(one.split()) for one in _statements(text)]
    made = [match[1] for one in statements if (match := _CREATE_TABLE.match(one))]
    effects: dict[Effect, None] = {}
    for statement in statements:
        for effect in _of(statement):
            if effect.table not in made:
                effects[effect] = None
    return tuple(made), tuple(effects)


_PARTS = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?\*/ ) | (?P<end> ; )
    | (?P<quoted> '(?:[^']|'')*' | "[^"]*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    """,
    re.DOTALL | re.VERBOSE,
)


def _statements(text: str) -> Iterator[str]:
    """The statements of a text without their comments; bodies of functions are left whole."""
    began, current = 0, ""
    for match in _PARTS.finditer(text):
        current += text[began : match.start()] + (match[0] if match["quoted"] else " ")
        began = match.end()
        if match["end"]:
            if current.strip():
                yield current.strip()
            current = ""
    if (current + text[began:]).strip():
        yield (current + text[began:]).strip()


_I = re.IGNORECASE
_IF = r"(?:if (?:not )?exists )?"
_CREATE_TABLE = re.compile(rf"create (?:unlogged )?table {_IF}(\w+)", _I)
_REFERENCES = re.compile(r"\breferences (\w+)", _I)
_INDEX = re.compile(rf"create (?:unique )?index (concurrently )?{_IF}(?:\w+ )?on (?:only )?(\w+)", _I)
_ALTER = re.compile(rf"alter table {_IF}(?:only )?(\w+) (.*)", _I)
_TRIGGER = re.compile(r"create (?:or replace )?(?:constraint )?trigger \w+ .*? on (\w+)", _I)
_DROP = re.compile(rf"drop (table|index|trigger) (concurrently )?{_IF}(\w+)(?: on (\w+))?", _I)
_WRITE = re.compile(r"(?:insert into|update|delete from|truncate(?: table)?) (?:only )?(\w+)", _I)
_HARMLESS = re.compile(
    r"(?:create (?:or replace )?(?:function|procedure|view|type|domain|sequence|extension|schema|role|aggregate)"
    r"|drop (?:function|procedure|view)|comment on|grant|revoke|select|set)\b",
    _I,
)
# Of what stands in `alter table`, the first that is found.
_ALTERATIONS: tuple[tuple[re.Pattern[str], str, Verdict], ...] = (
    (re.compile(r"add column .*(?:\w+\(\)|generated always as \(.*\) stored)", _I), _REWRITES, "in a quiet hour"),
    (re.compile(r"alter (?:column )?\w+ (?:set data )?type", _I), _REWRITES, "in a quiet hour"),
    (re.compile(r"validate constraint", _I), "share update exclusive: nobody waits", "safe under load"),
    (re.compile(r"add .*\bnot valid$", _I), _INSTANT, "safe under load"),
    (re.compile(r"add .*\busing index\b", _I), _INSTANT, "safe under load"),
    (re.compile(r"alter (?:column )?\w+ set not null", _I), _SCANS, "in a quiet hour"),
    (re.compile(r"add (?:column|generated)", _I), _INSTANT, "safe under load"),
    (re.compile(r"add (?:constraint|check|unique|primary|foreign|exclude)", _I), _SCANS, "in a quiet hour"),
    (
        re.compile(r"drop|rename|alter (?:column )?\w+ (?:set|drop)|set \(|reset|(?:en|dis)able", _I),
        _INSTANT,
        "safe under load",
    ),
)


def _of(statement: str) -> Iterator[Effect]:
    """What a statement does to tables; what it makes itself is left out by the caller."""
    if _CREATE_TABLE.match(statement):
        for table in dict.fromkeys(_REFERENCES.findall(statement)):
            yield Effect("is referred to", table, "share row exclusive, for an instant")
    elif match := _INDEX.match(statement):
        if match[1]:
            yield Effect("index", match[2], "share update exclusive: nobody waits; it waits for older transactions")
        else:
            yield Effect("index", match[2], "share: writes wait while it is built", "in a quiet hour")
    elif match := _ALTER.match(statement):
        lock, verdict = _altered(match[2])
        yield Effect(match[2].split("(")[0][:60].strip(), match[1], lock, verdict)
    elif match := _TRIGGER.match(statement):
        yield Effect("trigger", match[1], "share row exclusive, for an instant")
    elif match := _DROP.match(statement):
        lock = "share update exclusive: nobody waits" if match[2] else _INSTANT
        yield Effect(f"drop {match[1].lower()}", match[4] or match[3], lock)
    elif match := _WRITE.match(statement):
        yield Effect("rows are written", match[1], "each row that is written, to the end", "in a quiet hour")
    elif not _HARMLESS.match(statement):
        yield Effect(statement[:60], "", "unknown", "read it first")


def _altered(clause: str) -> tuple[str, Verdict]:
    for form, lock, verdict in _ALTERATIONS:
        if form.match(clause):
            return lock, verdict
    return "unknown", "read it first"
