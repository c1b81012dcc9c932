"""Checkpoints under a cipher: rows sealed before they are put, opened after they are read.

Sealed are the values of channels (beside the checkpoint and inline), pending writes, and those members of a
checkpoint's metadata that LangGraph copies from the run's config and context. Each is bound to its thread and row. In
the clear stay ids, versions, names of channels and nodes, and the metadata that is searched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from psycopg.rows import DictRow

from waystation_db.checkpoint_rows import BlobRow, CheckpointRow, Put, WriteRow
from waystation_db.cipher import MARK, Cipher, Place, label_of_type, loads, sealed_type
from waystation_db.errors import Undecipherable
from waystation_db.json import dumps

_MODEL = "checkpoint"


def blob_place(thread_id: str, namespace: str, channel: str, version: str) -> Place:
    """The place of a channel's value."""
    return Place(_MODEL, "blob", (thread_id, namespace, channel, version))


def write_place(thread_id: str, namespace: str, checkpoint_id: str, task_id: str, index: int, channel: str) -> Place:
    """The place of a pending write."""
    return Place(_MODEL, "write", (thread_id, namespace, checkpoint_id, task_id, str(index), channel))


def inline_place(thread_id: str, namespace: str, checkpoint_id: str) -> Place:
    """The place of the values inside a checkpoint."""
    return Place(_MODEL, "values", (thread_id, namespace, checkpoint_id))


def metadata_place(thread_id: str, namespace: str, checkpoint_id: str) -> Place:
    """The place of a checkpoint's metadata."""
    return Place(_MODEL, "metadata", (thread_id, namespace, checkpoint_id))


def private_members(config: RunnableConfig) -> Collection[str]:
    """The members of a checkpoint's metadata that are copies of the run's config and context."""
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    return configurable.keys()


async def sealed(cipher: Cipher, put: Put, *, private: Collection[str] = ()) -> Put:
    """The put with everything in it sealed that is to be. Raises what the cipher raises."""
    checkpoint = put.checkpoint
    return replace(
        put,
        blobs=[await _sealed_blob(cipher, row) for row in put.blobs],
        writes=[await _sealed_write(cipher, row) for row in put.writes],
        checkpoint=None if checkpoint is None else await _sealed_checkpoint(cipher, checkpoint, private),
    )


async def _sealed_blob(cipher: Cipher, row: BlobRow) -> BlobRow:
    place = blob_place(row.thread_id, row.checkpoint_ns, row.channel, row.version)
    label, data = await cipher.seal(place, row.blob)
    return row._replace(type=sealed_type(row.type, label), blob=data)


async def _sealed_write(cipher: Cipher, row: WriteRow) -> WriteRow:
    place = write_place(row.thread_id, row.checkpoint_ns, row.checkpoint_id, row.task_id, row.idx, row.channel)
    label, data = await cipher.seal(place, row.blob)
    return row._replace(type=sealed_type(row.type, label), blob=data)


async def _sealed_checkpoint(cipher: Cipher, row: CheckpointRow, private: Collection[str]) -> CheckpointRow:
    names = (row.thread_id, row.checkpoint_ns, row.checkpoint_id)
    checkpoint: dict[str, Any] = loads(row.checkpoint)
    values: dict[str, Any] = checkpoint["channel_values"]
    # LangGraph's SQL looks for the marks of delta channels; they say nothing.
    marks = {channel: value for channel, value in values.items() if value is True}
    hidden = {channel: value for channel, value in values.items() if value is not True}
    if hidden:
        checkpoint["channel_values"] = {**marks, **await cipher.seal_json(inline_place(*names), hidden)}
    metadata = await cipher.seal_members(metadata_place(*names), loads(row.metadata), private=private)
    return row._replace(checkpoint=dumps(checkpoint), metadata=dumps(metadata))


async def open_row(cipher: Cipher, row: DictRow) -> DictRow:
    """A row of `select_checkpoints` as if nothing had been sealed. Raises Undecipherable, naming the checkpoint."""
    try:
        return await _open_row(cipher, row)
    except Undecipherable as error:
        raise Undecipherable(
            f"checkpoint {row['checkpoint_id']} of thread {row['thread_id']}: {error}", label=error.label
        ) from error


async def _open_row(cipher: Cipher, row: DictRow) -> DictRow:
    names = (row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"])
    checkpoint, metadata = row["checkpoint"], row["metadata"]
    if isinstance(checkpoint, dict):
        checkpoint = await _open_inline(cipher, names, cast("dict[str, Any]", checkpoint))
    if isinstance(metadata, dict):
        metadata = await cipher.open_members(metadata_place(*names), cast("dict[str, Any]", metadata))
    versions: Any = cast("dict[str, Any]", checkpoint).get("channel_versions") if isinstance(checkpoint, dict) else None
    return {
        **row,
        "checkpoint": checkpoint,
        "metadata": metadata,
        "channel_values": [
            await _open_blob(cipher, names, value, versions or {}) for value in row["channel_values"] or ()
        ],
        "pending_writes": [await _open_write(cipher, names, write) for write in row["pending_writes"] or ()],
    }


async def _open_inline(cipher: Cipher, names: tuple[str, str, str], checkpoint: dict[str, Any]) -> dict[str, Any]:
    values: Any = checkpoint.get("channel_values")
    if not isinstance(values, dict) or MARK not in values:
        return checkpoint
    stored = cast("dict[str, Any]", values)
    marks = {channel: value for channel, value in stored.items() if value is True}
    rest = {channel: value for channel, value in stored.items() if value is not True}
    return {**checkpoint, "channel_values": {**marks, **await cipher.open_json(inline_place(*names), rest)}}


async def _open_blob(
    cipher: Cipher, names: tuple[str, str, str], value: Sequence[bytes], versions: Mapping[str, Any]
) -> Sequence[bytes]:
    channel, kind, blob = value
    known = label_of_type(kind.decode())
    if known is None:
        return value
    inner, label = known
    name = channel.decode()
    place = blob_place(names[0], names[1], name, str(versions.get(name)))
    return channel, inner.encode(), await cipher.open(place, label, blob)


async def _open_write(cipher: Cipher, names: tuple[str, str, str], write: Sequence[bytes]) -> Sequence[bytes]:
    task_id, channel, kind, blob, path, index = write
    known = label_of_type(kind.decode())
    if known is None:
        return write
    inner, label = known
    place = write_place(*names, task_id.decode(), int(index), channel.decode())
    return task_id, channel, inner.encode(), await cipher.open(place, label, blob), path, index


async def open_sends(cipher: Cipher, sends: Sequence[Sequence[bytes]]) -> list[tuple[bytes, bytes]]:
    """Type and value of sends that an old LangGraph stored with a parent checkpoint."""
    opened: list[tuple[bytes, bytes]] = []
    for kind, blob in sends:
        known = label_of_type(kind.decode())
        if known is None:
            opened.append((kind, blob))
        else:
            opened.append((known[0].encode(), await cipher.open(Place(_MODEL, "write"), known[1], blob)))
    return opened
