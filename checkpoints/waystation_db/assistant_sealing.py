"""What assistants and their versions keep, sealed on its way in and opened on its way out.

    config     each member by itself: SQL merges them into what threads show of their config
    context    whole; an empty one is left as it is
    metadata   the members that the operator or the project's handler chose, each by itself: SQL merges them into runs'

The statement that makes a run copies config and context as they are stored; the worker opens them.

Processes of versions that do not know of sealed assistants would take them for configuration. So what is sealed is read
at any time, and written only when the migration SWITCH says that no such process is left. It is asked at each write,
never remembered: a process that started before the migration seals from the moment in which it is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db.cipher import MARK, MARK_BYTES, Cipher, Place, check_members, is_sealed, loads
from waystation_db.errors import SealingFailed, SearchesSealed, Undecipherable
from waystation_db.json import dumps
from waystation_db.places import assistant_context_place, config_place, metadata_place
from waystation_db.pool import cipher_of
from waystation_db.rows import ClaimedRun
from waystation_db.sql import load

_q = load("encryption")

Conn = AsyncConnection[TupleRow]
JSONObject = dict[str, Any]

SWITCH = "0045_sealed_assistants.post"
"""The migration that is applied when every process reads sealed assistants."""

EMPTY: tuple[Any, ...] = (None, {}, [])
"""What tells nothing, and need not be sealed."""


async def may_be_sealed(conn: Conn) -> bool:
    """Whether every process that uses this database reads sealed assistants. It stays so once it is."""
    row = await (await conn.execute(_q["may_seal_assistants"], {"switch": SWITCH})).fetchone()
    return row is not None and bool(row[0])


async def cipher_for(conn: Conn, params: Mapping[str, Any]) -> Cipher | None:
    """What an assistant that is written through this connection is to be sealed with; None: it stays plain. Raises
    SealingFailed for parameters of its statement that would be read as if they were sealed."""
    cipher = cipher_of(conn)
    if cipher is None or not cipher.seals:
        return None
    for name in ("config", "context", "metadata"):
        if (text := params.get(name)) is not None and f'"{MARK}"' in text:
            _refuse_marks(name, cast("JSONObject", loads(text)))
    return cipher if await may_be_sealed(conn) else None


async def sealed(cipher: Cipher | None, tenant_id: str, assistant_id: str, params: JSONObject) -> JSONObject:
    """Parameters of a statement about an assistant, with those sealed that are content. Raises SealingFailed."""
    if cipher is None:
        return params
    whole: JSONObject = {}
    if (config := params.get("config")) is not None:
        members = cast("JSONObject", loads(config))
        private = [name for name, member in members.items() if member not in EMPTY]
        whole["config"] = _text(await cipher.seal_each(config_place(tenant_id), members, private=private))
    if params.get("context") not in (None, "{}"):
        place = assistant_context_place(tenant_id, assistant_id)
        whole["context"] = _text(await cipher.seal_json(place, loads(params["context"])))
    if (metadata := params.get("metadata")) is not None:
        whole["metadata"] = _text(await cipher.seal_each(metadata_place(tenant_id), loads(metadata)))
    return params | whole


async def opened(
    cipher: Cipher, tenant_id: str, assistant_id: str, config: JSONObject, context: JSONObject
) -> tuple[JSONObject, JSONObject]:
    """The config and the context of an assistant, or of a run that has them from it. Raises Undecipherable."""
    return (
        await cipher.open_members(config_place(tenant_id), config),
        await cipher.open_json(assistant_context_place(tenant_id, assistant_id), context),
    )


async def opened_claim(cipher: Cipher | None, run: ClaimedRun) -> ClaimedRun:
    """A claimed run with what it has from its assistant. Raises Undecipherable."""
    if cipher is None:
        return run
    config, context = await opened(
        cipher, run.key.tenant_id, run.assistant_id, run.assistant_config, run.assistant_context
    )
    return replace(run, assistant_config=config, assistant_context=context)


async def check_searchable(conn: Conn, metadata: str | None) -> None:
    """Raise SearchesSealed where a filter names members that are sealed."""
    cipher = cipher_of(conn)
    hidden = [] if cipher is None or metadata is None else cipher.hides(loads(metadata))
    if hidden and await may_be_sealed(conn):
        raise SearchesSealed(f"metadata.{hidden[0]}: is encrypted on this server and cannot be searched")


async def open_face(cipher: Cipher | None, tenant_id: str, face: bytes) -> bytes:
    """An assistant's face, opened. It has to have its `assistant_id`. Raises Undecipherable."""
    if cipher is None or MARK_BYTES not in face:
        return face
    return dumps(await _face(cipher, tenant_id, loads(face), lenient=False))


async def open_faces(
    cipher: Cipher | None, tenant_id: str, found: Sequence[bytes], *, fields: Iterable[str] | None = None
) -> list[bytes]:
    """Faces of a list, opened; one that does not open hides no other. Shown are `fields`."""
    if cipher is None or (fields is None and not any(MARK_BYTES in face for face in found)):
        return list(found)
    shown = None if fields is None else frozenset(fields)
    faces = [await _face(cipher, tenant_id, loads(face), lenient=True) for face in found]
    return [dumps({name: part for name, part in face.items() if shown is None or name in shown}) for face in faces]


async def open_versions(cipher: Cipher | None, tenant_id: str, faces: bytes) -> bytes:
    """A JSON list of versions, opened; one that does not open hides no other."""
    if cipher is None or MARK_BYTES not in faces:
        return faces
    return dumps([await _face(cipher, tenant_id, face, lenient=True) for face in loads(faces)])


async def _face(cipher: Cipher, tenant_id: str, face: JSONObject, *, lenient: bool) -> JSONObject:
    places = {"config": config_place(tenant_id), "metadata": metadata_place(tenant_id)}
    for name, place in places.items():
        if name in face:
            try:
                face[name] = await cipher.open_members(place, face[name])
            except Undecipherable:
                if not lenient:
                    raise
                face[name] = _plain(face[name])
    if is_sealed(face.get("context")):
        try:
            place = assistant_context_place(tenant_id, str(face.get("assistant_id")))
            face["context"] = await cipher.open_json(place, face["context"])
        except Undecipherable:
            if not lenient:
                raise
            face["context"] = {}
    return face


def _refuse_marks(name: str, members: JSONObject) -> None:
    if is_sealed(members):
        raise SealingFailed(f"{name}: the member {MARK} is reserved where encryption is on")
    if name != "context":
        check_members(Place("assistant", name), members)


def _plain(members: Mapping[str, Any]) -> JSONObject:
    return {name: value for name, value in members.items() if not is_sealed(value)}


def _text(value: Any) -> str:
    return dumps(value).decode()
