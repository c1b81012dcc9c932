"""What clients see of threads and runs, where parts of it are sealed: opened on its way out.

A face in which nothing is sealed passes as the bytes that Postgres made. In lists one face that does not open must not
hide the others: it shows what it can, and says in `error` what it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from waystation_db.cipher import MARK_BYTES, Cipher, Place, is_sealed, loads
from waystation_db.errors import Undecipherable
from waystation_db.json import dumps
from waystation_db.places import config_place, kwargs_place, metadata_place, thread_place


async def open_thread(cipher: Cipher | None, tenant_id: str, face: bytes) -> bytes:
    """A thread's face, opened. It has to have its `thread_id`. Raises Undecipherable."""
    if cipher is None or MARK_BYTES not in face:
        return face
    return dumps(await _thread(cipher, tenant_id, loads(face), lenient=False))


async def open_threads(
    cipher: Cipher | None,
    tenant_id: str,
    faces: Sequence[bytes],
    *,
    fields: Iterable[str] | None = None,
    extract: Sequence[Mapping[str, Any]] | None = None,
) -> list[bytes]:
    """Faces of a list, opened. Shown are `fields`, where given, and `extracted`, by the paths in `extract`."""
    if cipher is None or (extract is None and fields is None and not any(MARK_BYTES in face for face in faces)):
        return list(faces)
    shown = None if fields is None else frozenset(fields)
    found: list[bytes] = []
    for face in faces:
        thread = await _thread(cipher, tenant_id, loads(face), lenient=True)
        visible = {name: value for name, value in thread.items() if shown is None or name in shown or name == "error"}
        if shown is not None and "error" not in shown and not _says_undecipherable(thread):
            visible.pop("error", None)
        if extract is not None:
            visible["extracted"] = {wish["alias"]: _at(thread.get(wish["root"]), wish["path"]) for wish in extract}
        found.append(dumps(visible))
    return found


async def open_run(cipher: Cipher | None, tenant_id: str, face: str) -> str:
    """A run's face, opened. Raises Undecipherable."""
    if cipher is None or MARK_BYTES.decode() not in face:
        return face
    return dumps(await _run(cipher, tenant_id, loads(face), lenient=False)).decode()


async def open_runs(cipher: Cipher | None, tenant_id: str, faces: str, *, fields: Iterable[str] | None = None) -> str:
    """A JSON array of runs' faces, opened; `fields` are those to show."""
    if cipher is None:
        return faces
    shown = None if fields is None else frozenset(fields)
    opened = [await _run(cipher, tenant_id, run, lenient=True) for run in cast("list[dict[str, Any]]", loads(faces))]
    return dumps(
        [{name: value for name, value in run.items() if shown is None or name in shown} for run in opened]
    ).decode()


async def _thread(cipher: Cipher, tenant_id: str, thread: dict[str, Any], *, lenient: bool) -> dict[str, Any]:
    thread_id = str(thread.get("thread_id"))
    opened = dict(thread)
    for name in ("values", "interrupts", "error"):
        if is_sealed(thread.get(name)):
            await _open_into(opened, name, cipher, thread_place(tenant_id, thread_id, name), None, lenient=lenient)
    await _open_members(opened, "metadata", cipher, metadata_place(tenant_id), lenient=lenient)
    await _open_members(opened, "config", cipher, config_place(tenant_id), lenient=lenient)
    return opened


async def _run(cipher: Cipher, tenant_id: str, run: dict[str, Any], *, lenient: bool) -> dict[str, Any]:
    opened = dict(run)
    if is_sealed(run.get("kwargs")):
        place = kwargs_place(tenant_id, str(run.get("run_id")))
        await _open_into(opened, "kwargs", cipher, place, {}, lenient=lenient)
    await _open_members(opened, "metadata", cipher, metadata_place(tenant_id), lenient=lenient)
    return opened


async def _open_into(
    face: dict[str, Any], name: str, cipher: Cipher, place: Place, otherwise: Any, *, lenient: bool
) -> None:
    try:
        face[name] = await cipher.open_json(place, face[name])
    except Undecipherable as error:
        if not lenient:
            raise
        face[name] = otherwise
        face["error"] = _shown(error)


async def _open_members(face: dict[str, Any], name: str, cipher: Cipher, place: Place, *, lenient: bool) -> None:
    members: Any = face.get(name)
    if not isinstance(members, dict):
        return
    stored = cast("dict[str, Any]", members)
    try:
        face[name] = await cipher.open_members(place, stored)
    except Undecipherable as error:
        if not lenient:
            raise
        face[name] = {key: value for key, value in stored.items() if not is_sealed(value)}
        face["error"] = _shown(error)


def _shown(error: Undecipherable) -> dict[str, str]:
    return {"error": "Undecipherable", "message": str(error)}


def _says_undecipherable(face: Mapping[str, Any]) -> bool:
    match face.get("error"):
        case {"error": "Undecipherable"}:
            return True
        case _:
            return False


def _at(value: Any, path: Sequence[str]) -> Any:
    """What Postgres's `#>` finds: members by name, items of lists by number, the last one being -1; else null."""
    for step in path:
        match value:
            case dict():
                value = cast("dict[str, Any]", value).get(step)
            case list():
                items = cast("list[Any]", value)
                index = int(step) if step.lstrip("-").isdigit() else len(items)
                value = items[index] if -len(items) <= index < len(items) else None
            case _:
                return None
    return value
