"""What /v1 answers with: for the documentation only, nothing is validated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from waystation.runs.requests import JSONObject


class ModelObject(BaseModel):
    """An assistant as a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    assistant_id: str
    graph_id: str
    name: str
    description: str | None


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelObject]


class FunctionObject(BaseModel):
    name: str
    arguments: str


class ToolCallObject(BaseModel):
    """A call for the client to execute."""

    id: str
    type: Literal["function"]
    function: FunctionObject


class ChatMessageObject(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[JSONObject]
    tool_calls: list[ToolCallObject] = []


class ChoiceObject(BaseModel):
    index: int
    message: ChatMessageObject
    logprobs: JSONObject | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class UsageObject(BaseModel):
    """Tokens of all model calls of the run."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: JSONObject
    completion_tokens_details: JSONObject


class InterruptObject(BaseModel):
    """What the graph asks."""

    id: str
    value: Any


class RunNote(BaseModel):
    """Ours: where the answer is from, and what the graph asks."""

    thread_id: str
    run_id: str
    interrupts: list[InterruptObject] = []


class CompletionObject(BaseModel):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChoiceObject]
    usage: UsageObject
    system_fingerprint: str | None
    waystation: RunNote


class ResponseUsageObject(BaseModel):
    """Tokens of all model calls of the run."""

    input_tokens: int
    input_tokens_details: JSONObject
    output_tokens: int
    output_tokens_details: JSONObject
    total_tokens: int


class ResponseObject(BaseModel):
    """An answer, finished or not."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None = None
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]
    background: bool
    error: JSONObject | None
    incomplete_details: JSONObject | None
    instructions: str | None
    metadata: dict[str, str]
    model: str
    output: list[JSONObject] = Field(
        description="Messages, `mcp_call` for tools that the graph used, `mcp_approval_request` for what waits for a"
        " person, `function_call` for what the client is to execute."
    )
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    temperature: float | None
    text: JSONObject
    tool_choice: Any
    tools: list[JSONObject]
    top_p: float | None
    truncation: str
    usage: ResponseUsageObject | None
    user: str | None
    waystation: RunNote


class ResponseDeleted(BaseModel):
    id: str
    object: Literal["response"]
    deleted: bool


class InputItemList(BaseModel):
    """A page of what a response was made from."""

    object: Literal["list"]
    data: list[JSONObject] = Field(
        description="Messages, `function_call` and `function_call_output`, `mcp_approval_response`."
    )
    first_id: str | None
    last_id: str | None
    has_more: bool
