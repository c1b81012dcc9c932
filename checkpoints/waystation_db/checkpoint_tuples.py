"""Rows of the checkpoint tables as the tuples that LangGraph works with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import DictRow

from waystation_db.errors import CorruptCheckpoint

_PARTS = {"v": int, "id": str, "channel_versions": dict, "versions_seen": dict}


def is_before_v4(row: DictRow) -> bool:
    """Whether LangGraph stored the checkpoint's sends with its parent, as it did until version 4 of the format."""
    checkpoint: Any = row["checkpoint"]
    version: Any = cast(dict[str, Any], checkpoint).get("v") if isinstance(checkpoint, dict) else None
    return row["parent_checkpoint_id"] is not None and isinstance(version, int) and version < 4


def checkpoint_tuple(serde: SerializerProtocol, row: DictRow) -> CheckpointTuple:
    """Build what `aget_tuple` returns from a row of `select_checkpoints`. Raises CorruptCheckpoint, nothing else."""
    try:
        stored = _checked(row["checkpoint"])
        inline: dict[str, Any] = stored.get("channel_values") or {}
        values = {**inline, **_values(serde, row["channel_values"] or ())}
        return CheckpointTuple(
            config=_config(row, row["checkpoint_id"]),
            checkpoint=cast(Checkpoint, {**stored, "channel_values": values}),  # checked above
            metadata=cast(CheckpointMetadata, {**row["metadata"]}),  # a TypeError when it is no object
            parent_config=_config(row, row["parent_checkpoint_id"]) if row["parent_checkpoint_id"] else None,
            pending_writes=_writes(serde, row["pending_writes"] or ()),
        )
    except CorruptCheckpoint as error:
        raise CorruptCheckpoint(f"{_name(row)}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptCheckpoint(f"{_name(row)} is not of the form of a checkpoint") from error


def _checked(checkpoint: Any) -> dict[str, Any]:
    for part, kind in _PARTS.items():
        if not isinstance(checkpoint[part], kind):
            raise TypeError(part)
    return checkpoint


def _values(serde: SerializerProtocol, rows: Sequence[tuple[bytes, bytes, bytes]]) -> dict[str, Any]:
    return {
        channel.decode(): serde.loads_typed((kind.decode(), blob)) for channel, kind, blob in rows if kind != b"empty"
    }


def _writes(serde: SerializerProtocol, rows: Sequence[tuple[bytes, ...]]) -> list[PendingWrite]:
    ordered = sorted(rows, key=lambda row: writes_sort_key(row[4].decode(), row[0].decode(), int(row[5])))
    return [
        (task_id.decode(), channel.decode(), serde.loads_typed((kind.decode(), blob)))
        for task_id, channel, kind, blob, *_ in ordered
    ]


def _config(row: DictRow, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": row["thread_id"],
            "checkpoint_ns": row["checkpoint_ns"],
            "checkpoint_id": checkpoint_id,
        }
    }


def _name(row: DictRow) -> str:
    return f"checkpoint {row['checkpoint_id']} of thread {row['thread_id']}"
