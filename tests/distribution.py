"""How the tables would stand on several Postgres servers, and what a statement says of the column that places a row.

Tables of `DISTRIBUTED` are placed by `thread_id`. A statement names a table's column when, at the level where the table
stands, `thread_id` must be equal to a parameter, to a member of a list or to what another part of the statement found,
or when an `insert` lists it. Conditions below `or` and `not` do not count, nor does a join of two such tables alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pglast

COLUMN = "thread_id"

DISTRIBUTED = frozenset(
    {
        *("thread", "run", "run_trace", "event_chunk", "checkpoint_write_before"),
        *("checkpoints", "checkpoint_blobs", "checkpoint_writes"),
    }
)
"""The hot tables. In those of the second line, which are LangGraph's, the column is text."""

REFERENCE = frozenset({"assistant", "assistant_version", "api_key", "encryption_key", "guard_kill"})
"""Small, read by every request or run, written by hand: a copy on each node."""

_PARAMETER = re.compile(r"%(?:\((\w+)\)s|%)")
_Node = dict[str, Any]


@dataclass
class _Level:
    """One select, insert, update or delete. `tables`: what it reads or writes itself, by alias. `given`: aliases whose
    column is compared with what comes from elsewhere. `joined`: pairs of aliases whose columns are equal."""

    tables: dict[str, str] = field(default_factory=dict[str, str])
    given: set[str] = field(default_factory=set[str])
    joined: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])


def unnamed(statement: str) -> set[str]:
    """The distributed tables whose column a statement does not name, by their names."""
    found: set[str] = set()
    for tree in pglast.parse_sql(numbered(statement)):
        root = tree(skip_none=True)
        made = {str(node["ctename"]) for node in _walk(root) if node["@"] == "CommonTableExpr"}
        for node in _walk(root):
            if node["@"] in ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"):
                found |= _unnamed_of(_level(node), made)
    return found


def numbered(statement: str) -> str:
    """The statement with `$1` for its first parameter."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return "%" if match[1] is None else f"${names.setdefault(match[1], len(names) + 1)}"

    return _PARAMETER.sub(number, statement)


def mentions(statement: str) -> set[str]:
    """Distributed tables that stand anywhere in a text, for texts that do not parse."""
    return {name for name in DISTRIBUTED if re.search(rf"\b(from|join|into|update|using) {name}\b", statement)}


def _unnamed_of(level: _Level, made: set[str]) -> set[str]:
    """A join of two distributed tables alone names neither's rows; one with anything else names them."""
    placed = {alias: table for alias, table in level.tables.items() if table in DISTRIBUTED - made}
    given = {next(iter(placed)) if alias == "" and len(placed) == 1 else alias for alias in level.given}
    while (
        more := {
            one for pair in level.joined for one, other in (pair, pair[::-1]) if other in given or other not in placed
        }
        - given
    ):
        given |= more
    return {table for alias, table in placed.items() if alias not in given}


def _level(statement: _Node) -> _Level:
    level = _Level()
    if statement["@"] == "InsertStmt":
        alias = _add_table(level, statement["relation"])
        if any(column.get("name") == COLUMN for column in statement.get("cols", ())):
            level.given.add(alias)
        return level
    parts = [statement.get(part) for part in ("relation", "fromClause", "usingClause", "whereClause")]
    for node in _walk(parts, within=True):
        if node["@"] == "RangeVar":
            _add_table(level, node)
    for node in _walk(parts, within=True):
        _note(level, node)
    return level


def _add_table(level: _Level, node: _Node) -> str:
    alias = str(node.get("alias", {}).get("aliasname", node["relname"]))
    level.tables[alias] = str(node["relname"])
    return alias


def _note(level: _Level, node: _Node) -> None:
    if node["@"] == "JoinExpr" and any(_text(name) == COLUMN for name in node.get("usingClause", ())):
        level.joined |= {(one, other) for one in level.tables for other in level.tables if one != other}
    elif node["@"] == "SubLink":
        level.given |= set(_columns(node.get("testexpr")))
    elif node["@"] == "A_Expr" and [_text(name) for name in node["name"]] == ["="]:
        left, right = (set(_columns(node.get(side))) for side in ("lexpr", "rexpr"))
        if left and right:
            level.joined |= {(one, other) for one in left for other in right}
        else:
            level.given |= left | right


def _columns(side: Any) -> Iterator[str]:
    """The aliases before `thread_id` on one side of an equation, a row's members and casts included."""
    for node in _walk(side, within=True):
        if node["@"] == "ColumnRef":
            names = [_text(one) for one in node["fields"]]
            if names[-1] == COLUMN:
                yield names[0] if len(names) > 1 else ""


def _text(node: Any) -> str:
    return str(cast(_Node, node).get("sval", ""))


def _walk(tree: Any, *, within: bool = False) -> Generator[_Node]:
    """All nodes; `within` leaves out what is a statement of its own, and what need not hold."""
    if isinstance(tree, (list, tuple)):
        for member in cast("list[Any]", tree):
            yield from _walk(member, within=within)
    elif isinstance(tree, dict):
        node = cast(_Node, tree)
        if "@" in node:
            if within and (node["@"] == "SelectStmt" or _is_open(node)):
                return
            yield node
        for value in node.values():
            yield from _walk(value, within=within)


def _is_open(node: _Node) -> bool:
    """`or` and `not`: of what stands below, nothing is certain."""
    return node["@"] == "BoolExpr" and node["boolop"]["name"] != "AND_EXPR"
