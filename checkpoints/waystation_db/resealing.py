"""Rows sealed anew: under another key, for the first time, or for the thread that they were copied to.

    page of rows ─▶ open what is sealed, seal it with the current key ─▶ replace the row, if it still is what was read

Every row is a statement of its own that changes nothing a client can see, so it may run beside the server, stop at any
row and begin again: what is current already is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db import places
from waystation_db.aes import SYSTEM_MEMBERS
from waystation_db.assistant_sealing import EMPTY
from waystation_db.checkpoint_sealing import blob_place, inline_place, write_place
from waystation_db.checkpoint_sealing import metadata_place as checkpoint_metadata_place
from waystation_db.cipher import MARK, Cipher, Place, is_sealed, label_of_type, loads, sealed_type
from waystation_db.cron_sealing import delivery_places
from waystation_db.errors import Undecipherable
from waystation_db.json import dumps
from waystation_db.run_sealing import PRIVATE_CONFIG
from waystation_db.sql import load

_q = load("encryption")

Conn = AsyncConnection[TupleRow]
Key = tuple[str, ...]


@dataclass(slots=True)
class Progress:
    """What has been done to a table. `failed` are rows that do not open, by key."""

    table: str
    seen: int = 0
    plain: int = 0
    old: int = 0
    rewritten: int = 0
    failed: list[str] = field(default_factory=list[str])


async def rewrite(
    conn: Conn, cipher: Cipher, table: str, *, apply: bool, assistants: bool, again: bool = False, batch: int = 200
) -> Progress:
    """Go through a table of `TABLES`, row by row; what was found, and with `apply` rewritten.

    `assistants`: also what comes from assistants; see `assistant_sealing.may_be_sealed`. `again`: also what is sealed
    as it should be, so that handlers of the project that rotate keys see all of it. `conn` must be in autocommit mode:
    each row is committed by itself.
    """
    kind = TABLES[table] if assistants else _but_for_assistants(TABLES[table])
    progress = Progress(table)
    after: Key | None = None
    while rows := await _page(conn, kind, after=after, thread_id=None, limit=batch):
        for key, *values in rows:
            await _renew(conn, cipher, kind, tuple(key), tuple(values), progress, apply=apply, again=again)
        after = tuple(rows[-1][0])
    return progress


async def rebind_thread(conn: Conn, cipher: Cipher, source: str, target: str) -> None:
    """Seal what was copied from one thread to another for the other, in the open transaction. Raises Undecipherable."""
    for name in ("checkpoint_blobs", "checkpoint_writes", "checkpoints"):
        kind = TABLES[name]
        after: Key | None = None
        while rows := await _page(conn, kind, after=after, thread_id=target, limit=100):
            for key, *values in rows:
                there = tuple(key)
                if any(map(_looks_sealed, values)):
                    here = (source, *there[1:])
                    await _move(conn, cipher, kind, here, there, tuple(values))
            after = tuple(rows[-1][0])


async def rebind_face(conn: Conn, cipher: Cipher, tenant_id: str, *, source: str, target: str) -> None:
    """Seal what a copy of a thread shows for the copy, in the open transaction. Raises Undecipherable."""
    kind = TABLES["thread"]
    for key, *values in await _page(conn, kind, after=None, thread_id=target, limit=2):
        if key[0] == tenant_id and any(map(_looks_sealed, values)):
            await _move(conn, cipher, kind, (tenant_id, source), (tenant_id, target), tuple(values))


@dataclass(frozen=True, slots=True)
class Table:
    """How a table is read and replaced, and what its values are: blobs with a type beside them, or columns of JSON."""

    page: LiteralString
    replace: LiteralString
    blob: Callable[[Key], Place] | None = None
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of JSON text: opened and sealed whole, or member by member (those of them that are private), with `each`
    so that every member tells by itself how it was sealed, or only the member `inside`, or the members in `parts`, each
    at a place of its own, and those of `metadata`. With `if_any` an empty object is left as it is, and a row is to be
    rewritten if a private member is plain. `of_assistant`: comes from one. `kept`: is left as it is."""

    place: Callable[[Key], Place]
    members: bool = False
    each: bool = False
    if_any: bool = False
    is_private: Callable[[Key, str], bool] = lambda _key, _name: False
    inside: str | None = None
    parts: Callable[[Key], dict[str, Place]] | None = None
    of_assistant: bool = False
    kept: bool = False


async def known_keys(conn: Conn) -> list[str]:
    """The ids of the keys that the database was ever written with and still may need, oldest first."""
    return [row[0] for row in await (await conn.execute(_q["known_keys"])).fetchall()]


async def remember_key(conn: Conn, key_id: str) -> None:
    """Note that a key is in use."""
    await conn.execute(_q["remember_key"], {"key_id": key_id})


async def forget_other_keys(conn: Conn, key_id: str) -> None:
    """Note that nothing needs another key than this one."""
    await conn.execute(_q["forget_keys"], {"key_id": key_id})


async def _page(conn: Conn, kind: Table, *, after: Key | None, thread_id: str | None, limit: int) -> list[TupleRow]:
    params = {"after": None if after is None else list(after), "thread_id": thread_id, "limit": limit}
    return await (await conn.execute(kind.page, params)).fetchall()


async def _renew(
    conn: Conn,
    cipher: Cipher,
    kind: Table,
    key: Key,
    values: tuple[Any, ...],
    progress: Progress,
    *,
    apply: bool,
    again: bool,
) -> None:
    progress.seen += 1
    cipher.adopt(_NO_CONTEXT)  # what is plain has none; that of the row before is not its own
    labels = [label for value in _values(kind, values) for label in _labels(value)]
    is_old = any(not cipher.is_current(label) for label in labels)
    try:
        new = await _sealed_anew(cipher, kind, key, key, values)
    except Undecipherable:
        progress.failed.append("/".join(key[:4]))
        return
    if is_old:
        progress.old += 1
    elif not labels and new is not None:
        progress.plain += 1
    is_due = is_old or again or not labels or _is_partly_plain(kind, key, values)
    if apply and is_due and new is not None:
        progress.rewritten += await _replace(conn, kind, key, values, new)


async def _move(conn: Conn, cipher: Cipher, kind: Table, here: Key, there: Key, values: tuple[Any, ...]) -> None:
    try:
        await _sealed_anew(cipher, kind, there, there, values)
        return  # the target had it already
    except Undecipherable:
        new = await _sealed_anew(cipher, kind, here, there, values)
    if new is not None:
        await _replace(conn, kind, there, values, new)


async def _replace(conn: Conn, kind: Table, key: Key, old: tuple[Any, ...], new: tuple[Any, ...]) -> int:
    params: dict[str, Any] = {"key": list(key)}
    if kind.blob:
        params |= {"old_type": old[0], "old": old[1], "new_type": new[0], "new": new[1]}
    else:
        params |= {"old": list(old), "new": list(new)}
    return (await conn.execute(kind.replace, params)).rowcount


async def _sealed_anew(
    cipher: Cipher, kind: Table, here: Key, there: Key, values: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    """The row as it should be; None when nothing in it is to be sealed."""
    if kind.blob is not None:
        known = label_of_type(values[0])
        inner, clear = values
        if known is not None:
            inner, clear = known[0], await cipher.open(kind.blob(here), known[1], values[1])
            cipher.adopt_blob(known[1], values[1])
        label, data = await cipher.seal(kind.blob(there), clear)
        return (sealed_type(inner, label), data) if label else None
    new = [
        await _json_anew(cipher, column, here, there, text) for column, text in zip(kind.columns, values, strict=True)
    ]
    return None if all(a is b for a, b in zip(new, values, strict=True)) else tuple(new)


async def _json_anew(cipher: Cipher, column: Column, here: Key, there: Key, text: str | None) -> str | None:
    if text is None:
        return None
    value = loads(text)
    if column.kept or (column.if_any and value == {}):
        return text
    cipher.adopt(value)
    if column.inside is not None:
        return await _inside_anew(cipher, column, here, there, text, value)
    if column.parts is not None:
        return await _parts_anew(cipher, column, here, text, value)
    if not column.members:
        return dumps(
            await cipher.seal_json(column.place(there), await cipher.open_json(column.place(here), value))
        ).decode()
    if not isinstance(value, dict):
        return text
    again = await _members_anew(cipher, column, here, there, cast("dict[str, Any]", value))
    return text if again == value else dumps(again).decode()


async def _members_anew(
    cipher: Cipher, column: Column, here: Key, there: Key, members: dict[str, Any]
) -> dict[str, Any]:
    apart: dict[str, Any] = {}
    for name in [name for name, member in members.items() if _is_of_a_handler(member)]:
        cipher.adopt(members[name])
        opened = await cipher.open_members(column.place(here), {name: members[name]})
        apart |= await cipher.seal_each(column.place(there), opened, private=opened)
    if apart:
        cipher.adopt(members if is_sealed(members) else _NO_CONTEXT)
    rest = {name: member for name, member in members.items() if name not in apart}
    opened = await cipher.open_members(column.place(here), rest)
    private = [name for name, member in rest.items() if is_sealed(member) or _is_content(column, here, name, member)]
    seal = cipher.seal_each if column.each else cipher.seal_members
    again = await seal(column.place(there), opened, private=private)
    return {name: apart.get(name, again.get(name)) for name in members.keys() | again.keys()} if apart else again


async def _inside_anew(cipher: Cipher, column: Column, here: Key, there: Key, text: str, value: Any) -> str:
    name = str(column.inside)
    inside: Any = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    if not isinstance(inside, dict) or not inside:
        return text
    stored = cast("dict[str, Any]", inside)
    marks = {channel: member for channel, member in stored.items() if member is True}
    rest = {channel: member for channel, member in stored.items() if member is not True}
    if not rest:
        return text
    cipher.adopt(rest)
    again = await cipher.seal_json(column.place(there), await cipher.open_json(column.place(here), rest))
    return dumps({**value, name: {**marks, **again}}).decode()


async def _parts_anew(cipher: Cipher, column: Column, key: Key, text: str, value: Any) -> str:
    body = dict(cast("dict[str, Any]", value))
    places = column.parts(key) if column.parts else {}
    for name in places.keys() & body.keys():
        if body[name] is not None:
            cipher.adopt(body[name])
            body[name] = await cipher.seal_json(places[name], await cipher.open_json(places[name], body[name]))
    if isinstance(body.get("metadata"), dict):
        place, stored = column.place(key), cast("dict[str, Any]", body["metadata"])
        sealed = [name for name, member in stored.items() if is_sealed(member)]
        body["metadata"] = await cipher.seal_members(place, await cipher.open_members(place, stored), private=sealed)
    return dumps(body).decode() if body != value else text


def _is_of_a_handler(member: Any) -> bool:
    """Whether a member tells by itself that it was sealed, and in which context: as `seal_each` leaves it."""
    return is_sealed(member) and not isinstance(cast("dict[str, Any]", member)[MARK].get("key"), str)


def _values(kind: Table, values: tuple[Any, ...]) -> Sequence[Any]:
    return values[:1] if kind.blob is not None else values


def _labels(value: Any) -> list[str]:
    """The labels in a `type` column or a JSON text."""
    if not isinstance(value, str):
        return []
    if known := label_of_type(value):
        return [known[1]]
    return list(_labels_inside(loads(value))) if f'"{MARK}"' in value else []


def _labels_inside(value: Any) -> list[str]:
    match value:
        case {"__encryption__": {"key": str(label)}}:
            return [label]
        case {"__encryption__": _}:
            return ["handlers"]
        case dict():
            return [label for member in cast("dict[str, Any]", value).values() for label in _labels_inside(member)]
        case _:
            return []


def _is_content(column: Column, key: Key, name: str, member: Any) -> bool:
    return member not in EMPTY and column.is_private(key, name)


def _is_partly_plain(kind: Table, key: Key, values: tuple[Any, ...]) -> bool:
    """Whether a column that is sealed whole is not, or a member that is content."""
    return kind.blob is None and any(
        _is_plain(column, key, text)
        for column, text in zip(kind.columns, values, strict=True)
        if text not in (None, "null") and not column.kept and not (column.if_any and text == "{}")
    )


def _is_plain(column: Column, key: Key, text: str) -> bool:
    if column.members and column.if_any:
        value = loads(text)
        return not is_sealed(value) and any(
            _is_content(column, key, name, member) and not is_sealed(member) and name not in SYSTEM_MEMBERS
            for name, member in cast("dict[str, Any]", value).items()
        )
    return not column.members and column.inside is None and column.parts is None and f'"{MARK}"' not in text


def _but_for_assistants(kind: Table) -> Table:
    return replace(kind, columns=tuple(replace(column, kept=column.of_assistant) for column in kind.columns))


def _looks_sealed(value: Any) -> bool:
    return bool(_labels(value))


def _write_key(key: Key) -> Place:
    return write_place(key[0], key[1], key[2], key[3], int(key[4]), key[5])


_NO_CONTEXT: dict[str, Any] = {MARK: {"context": {}}}

_ASSISTANT_CONFIG = Column(
    lambda key: places.config_place(key[0]),
    members=True,
    each=True,
    if_any=True,
    is_private=lambda _key, _name: True,
    of_assistant=True,
)
_ASSISTANT = (
    _ASSISTANT_CONFIG,
    Column(lambda key: places.assistant_context_place(key[0], key[1]), if_any=True, of_assistant=True),
    Column(lambda key: places.metadata_place(key[0]), members=True, each=True, of_assistant=True),
)

OF_ASSISTANTS = ("assistant", "assistant_version")
"""Tables of which nothing is sealed before assistants may be."""

TABLES: dict[str, Table] = {
    # Before threads and runs: what is made meanwhile has it sealed from its assistant.
    "assistant": Table(_q["page_assistants"], _q["replace_assistant"], columns=_ASSISTANT),
    "assistant_version": Table(_q["page_versions"], _q["replace_version"], columns=_ASSISTANT),
    "checkpoint_blobs": Table(
        _q["page_blobs"], _q["replace_blob"], blob=lambda key: blob_place(key[0], key[1], key[2], key[3])
    ),
    "checkpoint_writes": Table(_q["page_writes"], _q["replace_write"], blob=_write_key),
    "checkpoint_write_before": Table(_q["page_writes_before"], _q["replace_write_before"], blob=_write_key),
    "checkpoints": Table(
        _q["page_checkpoints"],
        _q["replace_checkpoint"],
        columns=(
            Column(lambda key: inline_place(key[0], key[1], key[2]), inside="channel_values"),
            Column(
                lambda key: checkpoint_metadata_place(key[0], key[1], key[2]),
                members=True,
                is_private=lambda key, name: name not in key[3:],
            ),
        ),
    ),
    "thread": Table(
        _q["page_threads"],
        _q["replace_thread"],
        columns=(
            Column(lambda key: places.thread_place(key[0], key[1], "values")),
            Column(lambda key: places.thread_place(key[0], key[1], "interrupts")),
            Column(lambda key: places.thread_place(key[0], key[1], "error")),
            Column(lambda key: places.metadata_place(key[0]), members=True),
            Column(
                lambda key: places.config_place(key[0]),
                members=True,
                if_any=True,
                is_private=lambda _, name: name in (*PRIVATE_CONFIG, "configurable"),
            ),
        ),
    ),
    "run": Table(
        _q["page_runs"],
        _q["replace_run"],
        columns=(
            Column(lambda key: places.kwargs_place(key[0], key[2])),
            Column(lambda key: places.thread_place(key[0], key[1], "error")),
            Column(lambda key: places.metadata_place(key[0]), members=True),
            Column(lambda key: places.asked_place(key[0], key[2])),
            _ASSISTANT_CONFIG,
            Column(lambda key: places.assistant_context_place(key[0], key[3]), if_any=True, of_assistant=True),
        ),
    ),
    "cron": Table(
        _q["page_crons"],
        _q["replace_cron"],
        columns=(
            Column(lambda key: places.cron_place(key[0], key[1], "payload")),
            Column(lambda key: places.cron_place(key[0], key[1], "owner")),
            Column(lambda key: places.metadata_place(key[0]), members=True),
        ),
    ),
    "webhook_delivery": Table(
        _q["page_deliveries"],
        _q["replace_delivery"],
        columns=(
            Column(
                lambda key: places.metadata_place(key[0]),
                parts=lambda key: delivery_places(key[0], key[2], key[3]),
            ),
            Column(lambda key: places.metadata_place(key[0]), members=True),
        ),
    ),
    "store": Table(
        _q["page_store"], _q["replace_store"], columns=(Column(lambda key: places.store_place(key[0], key[1])),)
    ),
}
"""What can be sealed anew. Events of streams are not: they are gone minutes after their run."""
