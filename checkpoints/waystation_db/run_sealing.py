"""What statements about runs store and show, sealed on its way in and opened on its way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation_db import assistant_sealing
from waystation_db.cipher import Cipher, is_sealed, seal_members_text, seal_text
from waystation_db.errors import Undecipherable
from waystation_db.places import asked_place, config_place, kwargs_place, metadata_place, thread_place
from waystation_db.pool import cipher_of
from waystation_db.rows import ClaimedRun, RunKey

Conn = AsyncConnection[TupleRow]

PRIVATE_CONFIG = ("tags", "metadata")
"""Members of the config that a thread shows which may have content in them."""


async def sealed(conn: Conn, key: RunKey, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a statement about a run, with those sealed that are content. The same ones with encryption off."""
    cipher = cipher_of(conn)
    if cipher is None:
        return params
    tenant_id = key.tenant_id
    places = {
        "kwargs": kwargs_place(tenant_id, key.run_id),
        "values": thread_place(tenant_id, key.thread_id, "values"),
        "interrupts": thread_place(tenant_id, key.thread_id, "interrupts"),
        "error": thread_place(tenant_id, key.thread_id, "error"),
        "asked": asked_place(tenant_id, key.run_id),
    }
    whole = {name: await seal_text(cipher, place, params[name]) for name, place in places.items() if name in params}
    members = {
        name: await seal_members_text(cipher, metadata_place(tenant_id), params[name])
        for name in ("metadata", "thread_metadata")
        if name in params
    }
    if "config" in params:
        members["config"] = await seal_members_text(
            cipher, config_place(tenant_id), params["config"], private=PRIVATE_CONFIG
        )
    return params | whole | members


async def opened_metadata(conn: Conn, key: RunKey, metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a run that was just made, as SQL merged it. Where it does not open it stays sealed: the run is
    there, and fails when it is executed."""
    cipher = cipher_of(conn)
    if cipher is None:
        return metadata
    try:
        return await cipher.open_members(metadata_place(key.tenant_id), metadata)
    except Undecipherable:
        return metadata


async def opened_error(cipher: Cipher | None, key: RunKey, error: Any) -> dict[str, Any] | None:
    """A run's error; one that does not open says so: who asks how a run ended must get an answer."""
    if cipher is None or not is_sealed(error):
        return cast("dict[str, Any] | None", error)
    try:
        return await cipher.open_json(thread_place(key.tenant_id, key.thread_id, "error"), error)
    except Undecipherable as problem:
        return {"error": type(problem).__name__, "message": str(problem)}


async def opened_interrupts(conn: Conn, key: RunKey, interrupts: Any) -> Any:
    """What a thread asks, by task. Raises Undecipherable."""
    cipher = cipher_of(conn)
    if cipher is None:
        return interrupts
    return await cipher.open_json(thread_place(key.tenant_id, key.thread_id, "interrupts"), interrupts)


async def opened_asked(conn: Conn, key: RunKey, asked: Any) -> Any:
    """What a run asked when it stopped; nothing where it does not open."""
    cipher = cipher_of(conn)
    if cipher is None:
        return asked
    try:
        return await cipher.open_json(asked_place(key.tenant_id, key.run_id), asked)
    except Undecipherable:
        return None


async def opened_claim(cipher: Cipher | None, run: ClaimedRun) -> ClaimedRun:
    """A claimed run as it was asked for. Raises Undecipherable."""
    if cipher is None:
        return run
    return replace(
        await assistant_sealing.opened_claim(cipher, run),
        kwargs=await cipher.open_json(kwargs_place(run.key.tenant_id, run.key.run_id), run.kwargs),
        metadata=await cipher.open_members(metadata_place(run.key.tenant_id), run.metadata),
    )
