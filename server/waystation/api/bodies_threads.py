"""What clients may send to the operations on threads and their state."""

from __future__ import annotations

from dataclasses import replace
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

import orjson
from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from waystation.api.dependencies import RequestBody, ThreadId
from waystation.runs.requests import CheckpointRef, CommandBody, JSONObject
from waystation.runs.state_update import StateChange
from waystation_db.rows import ThreadStatus
from waystation_db.threads import ThreadFilter, ThreadSortBy, Ttl, TtlStrategy

MAX_TTL_MINUTES = 100 * 366 * 24 * 60.0
"""A hundred years: more than any TTL means, and safely inside what Postgres can add to a time."""

T = TypeVar("T")


class _NotNull:
    """Makes `T | None` validate as `T`: None is only what stands for a member that was left out."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        given = [member for member in get_args(source) if member is not NoneType]
        return handler.generate_schema(Union[tuple(given)])  # noqa: UP007 - made of a list


Omittable = Annotated[T | None, _NotNull()]
"""May be left out, but not be null."""

Metadata = Annotated[JSONObject, Field(default_factory=dict, description="Any JSON object.")]
ThreadMember = Literal[
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "config",
    "status",
    "values",
    "error",
    "interrupts",
]
Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**53)]


class TtlBody(RequestBody):
    """How long a thread lives after its last change."""

    ttl: float = Field(gt=0, le=MAX_TTL_MINUTES, allow_inf_nan=False, description="Minutes.")
    strategy: TtlStrategy = Field(default="delete", description="Delete it, or all but its latest checkpoints.")

    def to_ttl(self) -> Ttl:
        return Ttl(self.strategy, self.ttl)


class UpdateBody(RequestBody):
    """One update of a superstep."""

    values: JSONObject | list[Any] | None = None
    command: CommandBody | None = None
    as_node: str

    def to_change(self) -> StateChange:
        return StateChange(values=self.values, as_node=self.as_node, command=self.command)


class Superstep(RequestBody):
    """Updates that are applied together."""

    updates: list[UpdateBody] = Field(min_length=1)


class ThreadCreate(RequestBody):
    """A new thread."""

    thread_id: Omittable[str] = Field(default=None, description="A UUID; made by the server if left out.")
    metadata: Metadata
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: Omittable[TtlBody] = None
    supersteps: Omittable[list[Superstep]] = Field(
        default=None, description="A history to replay; needs `metadata.graph_id`."
    )


class ThreadPatch(RequestBody):
    """What to change of a thread."""

    metadata: Metadata
    ttl: Omittable[TtlBody] = None


class _ThreadsMatching(RequestBody):
    metadata: Omittable[JSONObject] = Field(default=None, description="What the metadata must contain.")
    values: Omittable[JSONObject] = Field(default=None, description="What the values must contain.")
    status: Omittable[ThreadStatus] = None

    def to_filter(self) -> ThreadFilter:
        return ThreadFilter(metadata=_json(self.metadata), values=_json(self.values), status=self.status)


class ThreadCount(_ThreadsMatching):
    """Which threads to count."""


class ThreadSearch(_ThreadsMatching):
    """Which threads to list, how, and what of them."""

    ids: Omittable[list[ThreadId]] = None
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Omittable[ThreadSortBy] = None
    sort_order: Literal["asc", "desc"] = "desc"
    select: Omittable[list[ThreadMember]] = Field(default=None, description="Only these members.")
    extract: Omittable[Annotated[dict[str, str], Field(max_length=10)]] = Field(
        default=None, description="Alias to path, such as `values.messages[-1].content`."
    )

    def to_filter(self) -> ThreadFilter:
        return replace(super().to_filter(), ids=self.ids)


class ThreadPrune(RequestBody):
    """Threads to delete, or to reduce to their latest checkpoints."""

    thread_ids: list[ThreadId]
    strategy: TtlStrategy = "delete"


class CheckpointRead(RequestBody):
    """A checkpoint whose state is wanted; with `checkpoint_ns` that of a subgraph."""

    checkpoint: CheckpointRef
    subgraphs: bool = False


class StateUpdateBody(RequestBody):
    """A change of a thread's state."""

    values: JSONObject | list[Any] | None = Field(default=None, description="As a node would return them.")
    as_node: Omittable[str] = Field(default=None, description="The node to act as; the one that ran last if left out.")
    checkpoint: Omittable[CheckpointRef] = Field(default=None, description="Fork from there.")
    checkpoint_id: Omittable[str] = Field(default=None, description="Older spelling of `checkpoint`.")

    def base(self) -> dict[str, Any] | None:
        """The checkpoint to fork from; None for the latest."""
        if self.checkpoint is not None:
            return configurable_of(self.checkpoint)
        return {"checkpoint_id": self.checkpoint_id} if self.checkpoint_id else None


def configurable_of(checkpoint: CheckpointRef | None) -> dict[str, Any] | None:
    """The members of a config that name a checkpoint."""
    return checkpoint.model_dump(exclude_none=True) if checkpoint is not None else None


class _ConfigBefore(RequestBody):
    configurable: CheckpointRef


class HistoryQuery(RequestBody):
    """Which states of a thread's past."""

    limit: Limit = 1
    before: Omittable[str | _ConfigBefore | CheckpointRef] = Field(
        default=None, description="A checkpoint's id, or an object that holds one."
    )
    metadata: Omittable[JSONObject] = Field(default=None, description="What the checkpoints' metadata must contain.")
    checkpoint: Omittable[CheckpointRef] = Field(default=None, description="`checkpoint_ns` for a subgraph's history.")

    def before_id(self) -> str | None:
        """The checkpoint that `before` names, in any of its spellings."""
        match self.before:
            case None | str():
                return self.before
            case _ConfigBefore():
                return self.before.configurable.checkpoint_id
            case CheckpointRef():
                return self.before.checkpoint_id


def _json(value: JSONObject | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
