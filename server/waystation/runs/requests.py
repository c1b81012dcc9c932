"""What a client may send to create a run. Validated once, here; everything behind it trusts these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

StreamMode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"
]
Durability = Literal["sync", "async", "exit"]
OnDisconnect = Literal["cancel", "continue"]

ShortText = Annotated[str, StringConstraints(max_length=1024)]
JSONObject = dict[str, Any]


def _canonical_uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise PydanticCustomError("uuid_of", "must be a UUID") from None


UuidText = Annotated[str, AfterValidator(_canonical_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]

MAX_DELAY_S = 10 * 365 * 24 * 3600.0
"""Ten years: more than any `after_seconds` means, and safely inside what Postgres can add to a time."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


ChannelUpdate = Annotated[list[Any], Field(min_length=2, max_length=2)]
"""A pair of channel name and value."""


class SendTo(_Body):
    """A node to run next, with an input of its own."""

    node: str
    input: Any = None


class CommandBody(_Body):
    """Instead of an input: answer interrupts, update the state, go somewhere."""

    resume: Any = None
    update: JSONObject | list[ChannelUpdate] | None = None
    goto: str | SendTo | list[str | SendTo] | None = None


class CheckpointRef(_Body):
    """A checkpoint of the thread to start from. `thread_id` is accepted and ignored: the path names the thread."""

    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: JSONObject | None = None


class RunConfig(_Body):
    """LangGraph's run configuration, as far as a client may set it."""

    tags: list[str] = Field(default_factory=list)
    recursion_limit: int | None = Field(default=None, ge=1, le=2**31 - 1)
    configurable: JSONObject = Field(default_factory=dict)
    metadata: JSONObject = Field(default_factory=dict)
    max_concurrency: int | None = Field(default=None, ge=1, le=2**31 - 1)
    run_name: ShortText | None = None


class RunCreate(_Body):
    """What a run is created from, on a thread or without one."""

    assistant_id: ShortText = Field(description="UUID of an assistant, or the name of a graph.")
    input: Any = Field(default=None, description="Input of the graph; null goes on from the checkpoint.")
    command: CommandBody | None = None
    checkpoint: CheckpointRef | None = None
    checkpoint_id: str | None = None
    config: RunConfig = Field(default_factory=RunConfig)
    context: JSONObject = Field(default_factory=dict)
    metadata: JSONObject = Field(default_factory=dict)
    stream_mode: StreamMode | list[StreamMode] = Field(default_factory=lambda: ["values"])
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    interrupt_before: Literal["*"] | list[str] | None = None
    interrupt_after: Literal["*"] | list[str] | None = None
    after_seconds: float | None = Field(default=None, ge=0, le=MAX_DELAY_S)
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    on_disconnect: str | None = Field(
        default=None, description="`cancel` stops the run when this request's client leaves."
    )
    webhook: str = Field(default="", description="URL that gets a POST with the run and its outcome when it ends.")
    feedback_keys: list[str] | None = None
    strict_resume: bool | None = Field(
        default=None, description="Fail instead of ignoring an answer to an interrupt that does not wait."
    )

    is_native: ClassVar[bool] = False

    @property
    def stream_modes(self) -> list[StreamMode]:
        if isinstance(self.stream_mode, list):
            return list(dict.fromkeys(self.stream_mode)) or ["values"]
        return [self.stream_mode]

    @property
    def effective_durability(self) -> Durability:
        if self.durability is not None:
            return self.durability
        return "exit" if self.checkpoint_during is False else "async"

    @property
    def cancel_on_leave(self) -> bool:
        return self.on_disconnect == "cancel"


NATIVE = "event_protocol"
"""The member of a run's kwargs that says that its events are those of the streaming protocol."""


STRICT_RESUME = "strict_resume"
"""The member of a run's kwargs that says that an answer to no open interrupt fails it."""


def is_native(kwargs: Mapping[str, Any]) -> bool:
    """Whether a run's events are those of the streaming protocol."""
    return bool(kwargs.get(NATIVE))


class ThreadRunCreate(RunCreate):
    """A run on a thread."""

    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"


class NativeRunCreate(ThreadRunCreate):
    """A run of the streaming protocol: its events are numbered, and kept for a while."""

    is_native: ClassVar[bool] = True


class StatelessRunCreate(RunCreate):
    """A run on a thread made for it, which goes with it unless it is to be kept."""

    on_completion: Literal["delete", "keep"] = "delete"


class CancelMany(_Body):
    """Which runs to cancel: those of one thread by id, or all in a state. Exactly one of the two."""

    status: Literal["pending", "running", "all"] | None = None
    thread_id: UuidText | None = None
    run_ids: Annotated[list[UuidText], Field(max_length=1000)] | None = None
