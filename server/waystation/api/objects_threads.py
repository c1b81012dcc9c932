"""What the operations on threads and their state answer with: for the documentation only, nothing is validated."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from waystation.runs.requests import JSONObject
from waystation_db.rows import ThreadStatus
from waystation_db.threads import TtlStrategy


class TtlObject(BaseModel):
    """When and how a thread expires."""

    strategy: TtlStrategy
    ttl_minutes: float
    expires_at: str


class ThreadObject(BaseModel):
    """A thread."""

    thread_id: str
    created_at: str
    updated_at: str
    state_updated_at: str
    metadata: JSONObject
    status: ThreadStatus
    config: JSONObject
    values: Any = Field(
        default=None, description="The state at the last checkpoint; null before the first run, absent in a copy."
    )
    error: JSONObject | None = Field(default=None, description="Of the last run that failed or was stopped.")
    interrupts: JSONObject = Field(default_factory=dict, description="Task id to what the task asks.")
    ttl: TtlObject | None = None
    extracted: JSONObject | None = None


class SelectedThread(BaseModel):
    """A thread, or the selected members of it."""

    thread_id: str = ""
    created_at: str = ""
    updated_at: str = ""
    state_updated_at: str = ""
    metadata: JSONObject = Field(default_factory=dict)
    status: ThreadStatus = "idle"
    config: JSONObject = Field(default_factory=dict)
    values: Any = None
    error: JSONObject | None = None
    interrupts: JSONObject | None = None
    ttl: TtlObject | None = None
    extracted: JSONObject | None = Field(default=None, description="By alias, what `extract` asked for.")


class CheckpointObject(BaseModel):
    """What names a checkpoint."""

    thread_id: str
    checkpoint_ns: str = Field(default="", description="Empty for the graph itself; absent for an unknown checkpoint.")
    checkpoint_id: str
    checkpoint_map: JSONObject | None = None


class TaskObject(BaseModel):
    """A node's execution in a step."""

    id: str
    name: str
    path: list[Any]
    error: str | None
    interrupts: list[JSONObject]
    checkpoint: JSONObject | None
    state: JSONObject | None
    result: Any


class ThreadStateObject(BaseModel):
    """The state of a thread at a checkpoint."""

    values: Any
    next: list[str]
    tasks: list[TaskObject]
    metadata: JSONObject | None
    created_at: str | None
    checkpoint: CheckpointObject | None
    parent_checkpoint: CheckpointObject | None
    interrupts: list[JSONObject]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None


class UpdatedState(BaseModel):
    """The checkpoint that an update made."""

    checkpoint: CheckpointObject
    configurable: CheckpointObject
    checkpoint_id: str


class Pruned(BaseModel):
    """How many threads were pruned."""

    pruned_count: int


class StorageObject(BaseModel):
    """What a thread's checkpoints take in the database, in bytes of data."""

    thread_id: str
    total_bytes: int
    checkpoints: JSONObject
    channel_values: JSONObject
    pending_writes: JSONObject
