"""What LangGraph hands over to be stored, as rows of its tables, and back.

This is the one place that decides in what form a channel's value is stored: inline in the checkpoint's JSON, or as a
blob of the channel at a version. Storing lists by item and encryption belong here, in `_stored_values`, `write_rows`
and `CheckpointSerde`, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot  # pyright: ignore[reportPrivateUsage]  # its only home

from waystation_db import json
from waystation_db.checkpoint_chain import PutChain
from waystation_db.rows import RunKey

# Longer strings are stored once per version instead of in every checkpoint that has them.
_INLINE_CHARS = 1024
_INLINE_BITS = 1000


class BlobRow(NamedTuple):
    """A row of checkpoint_blobs."""

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str
    type: str
    blob: bytes


class CheckpointRow(NamedTuple):
    """A row of checkpoints; the last two are JSON in UTF-8."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint: bytes
    metadata: bytes


class WriteRow(NamedTuple):
    """A row of checkpoint_writes."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Fence:
    """The attempt for which something is written."""

    key: RunKey
    attempt: int


@dataclass(frozen=True, slots=True)
class Put:
    """Everything of one `aput` or `aput_writes`: written together or not at all.

    `replaces` says whether the writes overwrite those of the same task and index, as errors and interrupts do;
    `elsewhere` whether they go to a checkpoint of another run, where they must be undone if this run is rolled back.
    `chain` are the puts of its run, where they do not wait for one another.
    """

    fence: Fence | None
    blobs: Sequence[BlobRow] = ()
    checkpoint: CheckpointRow | None = None
    writes: Sequence[WriteRow] = ()
    replaces: bool = False
    elsewhere: bool = False
    chain: PutChain | None = None

    def size_bytes(self) -> int:
        """About how long it is."""
        head = len(self.checkpoint.checkpoint) + len(self.checkpoint.metadata) if self.checkpoint else 0
        return head + sum([len(row.blob) for row in self.blobs]) + sum([len(row.blob) for row in self.writes])


def checkpoint_put(
    serde: SerializerProtocol,
    fence: Fence | None,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    *,
    chain: PutChain | None = None,
) -> Put:
    """Return the rows of a checkpoint; `config` names its thread, namespace and parent. Raises what `serde` raises."""
    configurable = config["configurable"]  # pyright: ignore[reportTypedDictNotRequiredAccess]  # LangGraph sets it
    thread_id, namespace = str(configurable["thread_id"]), cast(str, configurable.get("checkpoint_ns", ""))
    inline, blobs = _stored_values(checkpoint, new_versions)
    return Put(
        fence,
        blobs=[
            BlobRow(thread_id, namespace, channel, version, *serde.dumps_typed(value))
            for channel, version, value in blobs
        ],
        checkpoint=CheckpointRow(
            thread_id,
            namespace,
            checkpoint["id"],
            configurable.get("checkpoint_id"),
            json.dumps({**checkpoint, "channel_values": inline}),
            json.dumps(get_serializable_checkpoint_metadata(config, metadata)),
        ),
        chain=chain,
    )


def write_rows(
    serde: SerializerProtocol,
    fence: Fence | None,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    *,
    elsewhere: bool,
    chain: PutChain | None = None,
) -> Put:
    """Return the rows of what a task wrote. Raises what `serde` raises."""
    configurable = config["configurable"]  # pyright: ignore[reportTypedDictNotRequiredAccess]  # LangGraph sets it
    thread_id, namespace = str(configurable["thread_id"]), cast(str, configurable.get("checkpoint_ns", ""))
    checkpoint_id = configurable["checkpoint_id"]
    rows = [
        WriteRow(
            thread_id,
            namespace,
            checkpoint_id,
            task_id,
            task_path,
            WRITES_IDX_MAP.get(channel, index),
            channel,
            *serde.dumps_typed(value),
        )
        for index, (channel, value) in enumerate(writes)
    ]
    return Put(
        fence,
        writes=rows,
        replaces=all(channel in WRITES_IDX_MAP for channel, _ in writes),
        elsewhere=elsewhere,
        chain=chain,
    )


def _stored_values(
    checkpoint: Checkpoint, new_versions: ChannelVersions
) -> tuple[dict[str, Any], list[tuple[str, str, Any]]]:
    """Divide the values into those inline and (channel, version, value) of those stored beside the checkpoint."""
    inline: dict[str, Any] = {}
    blobs: list[tuple[str, str, Any]] = []
    versions = checkpoint["channel_versions"]
    for channel, value in checkpoint["channel_values"].items():
        if isinstance(value, _DeltaSnapshot):
            inline[channel] = True  # what LangGraph's savers leave in its place
        elif value is None or (isinstance(value, str | int | float) and not isinstance(value, Enum)):
            if _fits_json(value) or channel not in versions:
                inline[channel] = value
            else:
                # Also when it is not new: a saver of LangGraph may have stored it inline, in the parent only.
                blobs.append((channel, str(versions[channel]), value))
            continue
        if channel in new_versions:
            blobs.append((channel, str(new_versions[channel]), value))
    return inline, blobs


def _fits_json(value: str | float | None) -> bool:
    """Whether jsonb gives the value back as it is, without making every checkpoint long."""
    match value:
        case str():
            return len(value) <= _INLINE_CHARS and "\0" not in value
        case float():
            return math.isfinite(value)
        case int():
            return value.bit_length() <= _INLINE_BITS
        case _:
            return True
