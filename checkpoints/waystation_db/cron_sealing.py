"""What crons and webhook deliveries keep, sealed on its way in and opened on its way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from waystation_db.cipher import (
    MARK,
    MARK_BYTES,
    Cipher,
    Place,
    is_sealed,
    loads,
    seal_members_text,
    seal_text,
)
from waystation_db.errors import Undecipherable
from waystation_db.json import dumps
from waystation_db.places import cron_place, kwargs_place, metadata_place, thread_place

T = TypeVar("T")


async def sealed(cipher: Cipher | None, tenant_id: str, cron_id: str, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a statement about a cron, with those sealed that are content."""
    if cipher is None:
        return params
    for name in ("payload", "owner"):
        if params.get(name) is not None:
            params[name] = await seal_text(cipher, cron_place(tenant_id, cron_id, name), params[name])
    if params.get("metadata") is not None:
        params["metadata"] = await seal_members_text(cipher, metadata_place(tenant_id), params["metadata"])
    return params


async def opened(cipher: Cipher | None, tenant_id: str, cron_id: str, cron: T) -> T:
    """A row of a cron, of those dataclasses that have its payload. Raises Undecipherable."""
    if cipher is None:
        return cron
    row: Any = cron
    parts: dict[str, Any] = {}
    for name in ("payload", "owner"):
        if is_sealed(getattr(row, name, None)):
            parts[name] = await cipher.open_json(cron_place(tenant_id, cron_id, name), getattr(row, name))
    if isinstance(getattr(row, "metadata", None), dict):
        parts["metadata"] = await cipher.open_members(metadata_place(tenant_id), row.metadata)
    return cast("T", replace(row, **parts))


def adopt(cipher: Cipher | None, payload: Any) -> None:
    """Let the run that a cron makes be sealed as the cron is; nothing is left of the cron before."""
    if cipher is not None:
        cipher.adopt(payload if is_sealed(payload) else {MARK: {"context": {}}})


async def open_face(cipher: Cipher | None, tenant_id: str, face: bytes) -> bytes:
    """A cron's face, opened. It has to have its `cron_id`. Raises Undecipherable."""
    if cipher is None or MARK_BYTES not in face:
        return face
    return dumps(await _face(cipher, tenant_id, loads(face), lenient=False))


async def open_faces(
    cipher: Cipher | None, tenant_id: str, found: Sequence[bytes], *, fields: Iterable[str] | None
) -> list[bytes]:
    """Faces of a list, opened; one that does not open hides no other. Shown are `fields`."""
    if cipher is None:
        return list(found)
    shown = None if fields is None else frozenset(fields)
    crons = [await _face(cipher, tenant_id, loads(face), lenient=True) for face in found]
    return [dumps({name: part for name, part in cron.items() if shown is None or name in shown}) for cron in crons]


async def _face(cipher: Cipher, tenant_id: str, cron: dict[str, Any], *, lenient: bool) -> dict[str, Any]:
    try:
        if is_sealed(cron.get("payload")):
            place = cron_place(tenant_id, str(cron.get("cron_id")), "payload")
            cron["payload"] = await cipher.open_json(place, cron["payload"])
        if isinstance(cron.get("metadata"), dict):
            cron["metadata"] = await cipher.open_members(metadata_place(tenant_id), cron["metadata"])
    except Undecipherable:
        if not lenient:
            raise
        cron["payload"] = {}
    return cron


def delivery_places(tenant_id: str, thread_id: str, run_id: str) -> dict[str, Place]:
    """The places of what Postgres puts together to a webhook's body."""
    return {
        "kwargs": kwargs_place(tenant_id, run_id),
        "values": thread_place(tenant_id, thread_id, "values"),
        "error": thread_place(tenant_id, thread_id, "error"),
    }


async def open_delivery(cipher: Cipher | None, tenant_id: str, thread_id: str, run_id: str, payload: str) -> str:
    """A webhook's body, opened. Raises Undecipherable."""
    if cipher is None or MARK_BYTES.decode() not in payload:
        return payload
    body: dict[str, Any] = loads(payload)
    for name, place in delivery_places(tenant_id, thread_id, run_id).items():
        if is_sealed(body.get(name)):
            body[name] = await cipher.open_json(place, body[name])
    if isinstance(body.get("metadata"), dict):
        body["metadata"] = await cipher.open_members(metadata_place(tenant_id), body["metadata"])
    return dumps(body).decode()
