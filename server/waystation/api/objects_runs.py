"""What the operations on runs answer with: for the documentation only, nothing is validated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel

from waystation.runs.requests import JSONObject
from waystation_db.rows import RunStatus


class RunObject(BaseModel):
    """A run."""

    run_id: str
    thread_id: str
    assistant_id: str
    metadata: JSONObject
    status: RunStatus
    kwargs: JSONObject = Field(description="What it was asked for. No client needs its details.")
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"]
    created_at: str
    updated_at: str
    langsmith_session_name: str | None = None


class SelectedRun(BaseModel):
    """A run, or the selected members of it."""

    run_id: str = ""
    thread_id: str = ""
    assistant_id: str = ""
    metadata: JSONObject = Field(default_factory=dict)
    status: RunStatus = "pending"
    kwargs: JSONObject = Field(default_factory=dict)
    multitask_strategy: str = "enqueue"
    created_at: str = ""
    updated_at: str = ""
    langsmith_session_name: str | None = None


class RunOutput(RootModel[Any]):
    """The output of the graph: any JSON, an object for most graphs. With `__interrupt__` for one that asks, with
    `__error__` (and nothing else) for a run that failed."""


class Stopped(BaseModel):
    """An empty object: the run has stopped."""
