"""What OpenAI's clients may send. Members that mean nothing to a graph are checked for their type; no more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from waystation.runs.requests import JSONObject, UuidText

ModelName = Annotated[str, Field(min_length=1, max_length=1024, description="As `GET /v1/models` names it.")]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]
Words = Annotated[str, StringConstraints(max_length=10_000)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
CallId = Annotated[str, Field(min_length=1, max_length=512)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Part(_Body):
    """A part of a message's content, such as `text` or `image_url`; goes to the graph as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: str


class CalledFunction(_Body):
    name: str
    arguments: str = Field(description="JSON.")


class AssistantToolCall(_Body):
    """A call that an earlier answer asked for."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(_Body):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[AssistantToolCall] | None = None
    tool_call_id: CallId | None = None


class StreamOptions(_Body):
    include_usage: bool | None = None


class Generation(_Body):
    """How to answer. A graph gets those that its context has a member for, and no other has an effect."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    tools: list[JSONObject] | None = None
    tool_choice: str | JSONObject | None = None
    parallel_tool_calls: bool | None = None
    user: Words | None = Field(default=None, description="Goes into the run's metadata.")
    metadata: Metadata | None = Field(default=None, description="Goes into the run's metadata.")
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: Words | None = None
    prompt_cache_key: Words | None = None

    def given(self) -> dict[str, Any]:
        """What the request says, by its own names."""
        return self.model_dump(exclude_none=True)


class CompletionCreate(Generation):
    """A conversation to answer."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, description="Only 1.")
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = Field(default=None, description="Not offered.")
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="Not offered.")
    response_format: JSONObject | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = Field(default=None, description="Only `text`.")
    audio: JSONObject | None = Field(default=None, description="Not offered.")
    thread_id: UuidText | None = Field(default=None, description="Ours: go on with this thread.")


class InputItem(_Body):
    """An item of a response's input: a message, what a tool gave, the answer to an approval request."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    id: str | None = None
    call_id: CallId | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None
    approval_request_id: str | None = None
    approve: bool | None = None
    reason: str | None = None


class ConversationRef(_Body):
    id: str


class ResponseCreate(Generation):
    """An input to answer."""

    model: ModelName
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=10_000)]
    instructions: str | None = Field(default=None, description="A system message of this response alone.")
    previous_response_id: str | None = Field(default=None, description="Go on with its thread.")
    conversation: str | ConversationRef | None = Field(default=None, description="A thread's id.")
    background: bool | None = None
    stream: bool | None = None
    max_output_tokens: Tokens | None = None
    max_tool_calls: int | None = None
    reasoning: JSONObject | None = None
    text: JSONObject | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    prompt: JSONObject | None = Field(default=None, description="Not offered.")
