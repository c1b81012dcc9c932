"""The seam for encryption at rest: what the server hands in so that values are unreadable in the database.

    value ──seal──▶ what is stored ──open──▶ the same value
                    a value that was stored before encryption was switched on opens to itself

Whoever stores a value names its `Place`. A cipher may bind the value to it, so that a row's content does not open in
another row. `None` in the place of a cipher means that encryption is off, and costs nothing.

What is stored as JSON has the member MARK where it is sealed. What is stored as bytes begins with a byte that neither
JSON nor msgpack begins with (`pack`), or says so in the `type` column beside it.
"""

from __future__ import annotations

import json as stdlib_json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol, cast

from waystation_db.errors import SealingFailed, Undecipherable
from waystation_db.json import dumps

MARK = "__encryption__"
"""The member of a JSON object that says that it is sealed, and how."""

MARK_BYTES = f'"{MARK}"'.encode()

_PACKED = b"\xc1\x01"
_OUR_TYPES = ("aes-gcm:", "handlers")


class Place(NamedTuple):
    """What a value is and whose: (`thread`, `values`, its tenant and id)."""

    model: str
    field: str
    owner: tuple[str, ...] = ()


class Cipher(Protocol):
    """Seals and opens. All of it may run code of the user's; methods may be called on any loop."""

    async def seal(self, place: Place, data: bytes) -> tuple[str, bytes]:
        """A label that names the key, and the sealed bytes; an empty label where nothing is sealed."""
        ...

    async def open(self, place: Place, label: str, data: bytes) -> bytes:
        """The bytes that were sealed. Raises Undecipherable."""
        ...

    async def seal_json(self, place: Place, value: Any) -> Any:
        """A JSON value in whose place `value` can be stored; all of it is sealed. Null stays null."""
        ...

    async def open_json(self, place: Place, value: Any) -> Any:
        """What `seal_json` was given; a value that is not sealed as it is. Raises Undecipherable."""
        ...

    async def seal_members(
        self, place: Place, members: Mapping[str, Any], *, private: Collection[str] = ()
    ) -> dict[str, Any]:
        """An object with the same members, that SQL can merge with others: sealed are those in `private` and those that
        the operator chose; the others can be searched."""
        ...

    async def seal_each(
        self, place: Place, members: Mapping[str, Any], *, private: Collection[str] = ()
    ) -> dict[str, Any]:
        """As `seal_members`, but each sealed member tells by itself how it was sealed: SQL may merge it with others
        that were sealed in another context."""
        ...

    async def open_members(self, place: Place, members: Mapping[str, Any]) -> dict[str, Any]:
        """What `seal_members` or `seal_each` was given, merged or not. Raises Undecipherable."""
        ...

    def hides(self, names: Collection[str] = ()) -> list[str]:
        """Those of these members of metadata that are sealed where they are stored, and so cannot be searched for."""
        ...

    def adopt(self, sealed: Any) -> None:
        """Let what this task seals from now on be sealed as this JSON value was, where there is a choice."""
        ...

    def adopt_blob(self, label: str, data: bytes) -> None:
        """As `adopt`, for sealed bytes."""
        ...

    @property
    def seals(self) -> bool:
        """Whether values are sealed, and not only opened."""
        ...

    def is_current(self, label: str) -> bool:
        """Whether what is sealed now gets this label."""
        ...


def is_sealed(value: Any) -> bool:
    """Whether a JSON value is what a cipher made."""
    return isinstance(value, dict) and MARK in value


def check_members(place: Place, members: Mapping[str, Any]) -> None:
    """Raise SealingFailed for members that would look as if they were sealed."""
    for name, value in members.items():
        if is_sealed(value):
            raise SealingFailed(f"{place.field}.{name}: the member {MARK} is reserved where encryption is on")


def sealed_type(kind: str, label: str) -> str:
    """The `type` column of a sealed blob, in the manner of LangGraph: what it was, and by what it was sealed."""
    return f"{kind}+{label}" if label else kind


def label_of_type(kind: str) -> tuple[str, str] | None:
    """What a sealed blob was and its label; None for a type that is not sealed."""
    inner, plus, label = kind.partition("+")
    return (inner, label) if plus and (label == "aes" or label.startswith(_OUR_TYPES)) else None


async def pack(cipher: Cipher, place: Place, data: bytes) -> bytes:
    """Sealed bytes that say so themselves."""
    label, sealed = await cipher.seal(place, data)
    if not label:
        return data
    name = label.encode()
    return b"".join((_PACKED, bytes((len(name),)), name, sealed))


async def unpack(cipher: Cipher | None, place: Place, data: bytes) -> bytes:
    """What `pack` was given; bytes that are not sealed as they are. Raises Undecipherable."""
    label = packed_label(data)
    if label is None:
        return data
    if cipher is None:
        raise Undecipherable(f"a value is encrypted with {label!r}, and this server has no keys", label=label)
    return await cipher.open(place, label, data[3 + data[2] :])


def packed_label(data: bytes) -> str | None:
    """The label that packed bytes were sealed with; None when they are not sealed."""
    if not data.startswith(_PACKED) or len(data) < 3:
        return None
    return data[3 : 3 + data[2]].decode(errors="replace")


async def seal_text(cipher: Cipher | None, place: Place, text: str | None) -> str | None:
    """As `seal_json`, from JSON text to JSON text."""
    if cipher is None or text is None:
        return text
    return dumps(await cipher.seal_json(place, loads(text))).decode()


async def open_text(cipher: Cipher | None, place: Place, text: str | None) -> str | None:
    """As `open_json`, from JSON text to JSON text."""
    if cipher is None or text is None or f'"{MARK}"' not in text:
        return text
    return dumps(await cipher.open_json(place, loads(text))).decode()


async def seal_members_text(cipher: Cipher | None, place: Place, text: str, *, private: Collection[str] = ()) -> str:
    """As `seal_members`, from JSON text to JSON text."""
    if cipher is None or text == "{}":
        return text
    members = cast("dict[str, Any]", loads(text))
    return dumps(await cipher.seal_members(place, members, private=private)).decode()


def loads(text: str | bytes) -> Any:
    """JSON as Postgres keeps it: integers of any length stay what they are."""
    return stdlib_json.loads(text)
