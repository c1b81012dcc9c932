"""What a client may send about crons, and what it gets. Validated once, here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic import WithJsonSchema as JsonSchema
from pydantic_core import PydanticCustomError

from waystation.runs.assistant_bodies import Limit, MaybeObject, Offset, Omissible
from waystation.runs.requests import Durability, JSONObject, RunConfig, ShortText, StreamMode, UuidText

CronField = Literal[
    "cron_id",
    "assistant_id",
    "thread_id",
    "user_id",
    "end_time",
    "schedule",
    "timezone",
    "payload",
    "next_run_date",
    "metadata",
    "on_run_completed",
    "enabled",
    "disabled_reason",
    "created_at",
    "updated_at",
    "now",
]


def moment(text: str) -> datetime:
    """A time as clients write it; without an offset it is UTC. Raises ValueError."""
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _is_moment(text: str) -> str:
    try:
        moment(text)
    except ValueError:
        raise PydanticCustomError("time_of", "must be a time, such as 2030-01-31T09:00:00Z") from None
    return text


Moment = Annotated[
    str, Field(max_length=64), AfterValidator(_is_moment), JsonSchema({"type": "string", "format": "date-time"})
]
Schedule = Annotated[str, Field(max_length=1024, description="Five fields, or six with the seconds last.")]
Nodes = Literal["*"] | list[str]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Members(_Body):
    """What creating and changing have in common. None means that it was left out."""

    input: Any = None
    metadata: MaybeObject = None
    config: Annotated[RunConfig | None, Omissible()] = None
    context: MaybeObject = None
    webhook: Annotated[str | None, Omissible()] = None
    interrupt_before: Annotated[Nodes | None, Omissible()] = None
    interrupt_after: Annotated[Nodes | None, Omissible()] = None
    stream_mode: Annotated[StreamMode | list[StreamMode] | None, Omissible()] = None
    stream_subgraphs: Annotated[bool | None, Omissible()] = None
    stream_resumable: Annotated[bool | None, Omissible()] = None
    durability: Annotated[Durability | None, Omissible()] = None
    checkpoint_during: Annotated[bool | None, Omissible()] = None
    multitask_strategy: Annotated[Literal["reject", "enqueue", "interrupt", "rollback"] | None, Omissible()] = None
    on_run_completed: Annotated[Literal["delete", "keep"] | None, Omissible()] = None
    timezone: Annotated[ShortText | None, Omissible()] = Field(default=None, description="IANA name; UTC by default.")
    enabled: Annotated[bool | None, Omissible()] = None


class CronCreate(_Members):
    """A run at times."""

    assistant_id: ShortText = Field(description="UUID of an assistant, or the name of a graph.")
    schedule: Schedule
    end_time: Annotated[Moment | None, Omissible()] = None


class CronPatchBody(_Members):
    """What changes: metadata is merged member by member, the others replace."""

    schedule: Annotated[Schedule | None, Omissible()] = None
    end_time: Moment | None = Field(default=None, description="null: it has no end.")


class CronCount(_Body):
    """Which crons."""

    assistant_id: Annotated[UuidText | None, Omissible()] = None
    thread_id: Annotated[UuidText | None, Omissible()] = None
    enabled: Annotated[bool | None, Omissible()] = None
    metadata: MaybeObject = None


class CronSearch(CronCount):
    """A page of them."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal[
        "cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"
    ] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: Annotated[list[CronField] | None, Omissible()] = None


class Cron(BaseModel):
    """A run at times. `disabled_reason` is there only where the server switched it off."""

    cron_id: UuidText
    assistant_id: UuidText
    thread_id: UuidText | None
    user_id: str
    end_time: str | None
    schedule: str
    timezone: str | None
    payload: JSONObject
    next_run_date: str
    metadata: JSONObject
    on_run_completed: Literal["delete", "keep"] | None
    enabled: bool
    disabled_reason: str = ""
    created_at: str
    updated_at: str


class SelectedCron(BaseModel):
    """A cron, or the selected members of it."""

    cron_id: UuidText = ""
    assistant_id: UuidText = ""
    thread_id: UuidText | None = None
    user_id: str = ""
    end_time: str | None = None
    schedule: str = ""
    timezone: str | None = None
    payload: JSONObject = {}
    next_run_date: str = ""
    metadata: JSONObject = {}
    on_run_completed: Literal["delete", "keep"] | None = None
    enabled: bool = True
    disabled_reason: str = ""
    created_at: str = ""
    updated_at: str = ""
