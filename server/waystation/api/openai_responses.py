"""OpenAI's Responses API: a response is a run, `previous_response_id` goes on with its thread."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response as HttpResponse

from waystation.api.dependencies import CallerDep, ServicesDep, json_response
from waystation.api.held_answer import HeldAnswer
from waystation.api.long_answer import ensure_room
from waystation.api.openai_chat import json_response_of
from waystation.api.openai_errors import OpenAIRouter, failed, openai_error, openai_errors
from waystation.api.openai_items import input_items, page
from waystation.api.openai_objects import InputItemList, ResponseDeleted, ResponseObject
from waystation.api.openai_response import Head, Response
from waystation.api.openai_stream import OpenAIStream, named_event
from waystation.api.runs import origin_of
from waystation.auth import Principal
from waystation.errors import BadRequest
from waystation.runs import chat_responses
from waystation.runs.cancel import cancel_because_client_left
from waystation.runs.chat import Chat, ChatRequest, begin_chat, progress_of
from waystation.runs.chat_bodies import ResponseCreate
from waystation.runs.chat_messages import from_input
from waystation.runs.chat_responses import StoredResponse, response_id
from waystation.runs.chat_turn import Ended
from waystation.services import Services

router = OpenAIRouter(tags=["OpenAI"])

_STOPPING = "The server is stopping; send the request again."
_ECHOED = (
    "max_output_tokens",
    "parallel_tool_calls",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "user",
)
_OF_THE_REQUEST = frozenset({"model", "input", "stream", "metadata", "instructions", "background", "store"})
_RESPONSE: dict[int | str, dict[str, Any]] = {200: {"model": ResponseObject}}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ResponseObject,
        "description": "The response; with `stream` server-sent events, named by their `type`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/v1/responses",
    summary="Create a response",
    responses={**_STREAMED, **openai_errors(404, 409, 422, 503)},
    operation_id="create_response",
)
async def create_response(
    body: ResponseCreate, request: Request, services: ServicesDep, caller: CallerDep
) -> HttpResponse:
    """Runs the assistant on the input. Leaving before the end stops the run, unless it is in the `background`."""
    asked = await _request(services, caller, body)
    if not body.background or body.stream:
        ensure_room(request)
    chat = await begin_chat(services, caller, request=asked, origin=origin_of(request, None))
    head = _head(chat, body, asked)
    headers = {"Content-Location": f"/threads/{chat.key.thread_id}/runs/{chat.key.run_id}"}

    async def leave() -> None:
        await cancel_because_client_left(services, chat.key)

    if body.stream:
        events = _events(services, chat, Response(head), after=-1)
        return OpenAIStream(events, on_leave=None if body.background else leave, headers=headers)
    if body.background:
        return json_response_of(Response(head).show(None, status="queued"), headers)
    stopping = openai_error(503, _STOPPING, code="unavailable", headers={"Retry-After": "2"})
    return HeldAnswer(_whole(services, chat, Response(head), headers), on_leave=leave, stopping=stopping)


@router.get(
    "/v1/responses/{response_id}",
    summary="Get a response",
    responses={**_STREAMED, **openai_errors(404, 503)},
    operation_id="get_response",
)
async def get_response(
    response_id: str,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    stream: Annotated[bool, Query(description="Its events again; of background responses.")] = False,
    starting_after: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Only events after this one.")] = None,
) -> HttpResponse:
    """The response as it is now."""
    if not stream:
        return _shown(await chat_responses.stored_response(services, caller, given=response_id))
    ensure_room(request)
    chat, stored = await chat_responses.follow_response(services, caller, given=response_id)
    after = -1 if starting_after is None else starting_after
    return OpenAIStream(_events(services, chat, Response(_stored_head(stored)), after=after), on_leave=None)


@router.get(
    "/v1/responses/{response_id}/input_items",
    summary="List what a response was made from",
    responses={200: {"model": InputItemList}, **openai_errors(404)},
    operation_id="list_input_items",
)
async def list_input_items(
    response_id: str,
    services: ServicesDep,
    caller: CallerDep,
    order: Annotated[Literal["asc", "desc"], Query(description="`desc`: the newest first.")] = "desc",
    after: Annotated[str | None, Query(max_length=1024, description="Only items that come after this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many.")] = 20,
) -> HttpResponse:
    """What its thread held before, and what was sent."""
    given = await chat_responses.response_input(services, caller, given=response_id)
    return json_response(page(input_items(given), order=order, after=after, limit=limit))


@router.delete(
    "/v1/responses/{response_id}",
    summary="Delete a response",
    responses={200: {"model": ResponseDeleted}, **openai_errors(404)},
    operation_id="delete_response",
)
async def delete_response(response_id: str, services: ServicesDep, caller: CallerDep) -> HttpResponse:
    """Deletes its run; an active one is stopped first."""
    await chat_responses.delete_response(services, caller, given=response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@router.post(
    "/v1/responses/{response_id}/cancel",
    summary="Cancel a response",
    responses={**_RESPONSE, **openai_errors(404)},
    operation_id="cancel_response",
)
async def cancel_response(response_id: str, services: ServicesDep, caller: CallerDep) -> HttpResponse:
    """Stops its run and answers when it has stopped. A response that is finished stays as it is."""
    return _shown(await chat_responses.cancel_response(services, caller, given=response_id))


async def _whole(services: Services, chat: Chat, response: Response, headers: Mapping[str, str]) -> HttpResponse:
    try:
        async for happened in progress_of(services, chat):
            for progress in happened:
                for _ in response.add(progress, now=_now()):
                    pass
                if isinstance(progress, Ended):
                    return json_response_of(response.show(progress, now=_now()), dict(headers))
    except Exception as error:  # the head has not gone out: the request's own boundary
        return failed(error)
    return openai_error(503, _STOPPING, code="unavailable")


async def _events(services: Services, chat: Chat, response: Response, *, after: int) -> AsyncGenerator[bytes]:
    yield b"".join(named_event(event) for event in response.start() if event["sequence_number"] > after)
    async for happened in progress_of(services, chat):
        events = [event for progress in happened for event in response.add(progress, now=_now())]
        yield b"".join(named_event(event) for event in events if event["sequence_number"] > after)


def _shown(stored: StoredResponse) -> HttpResponse:
    response = Response(_stored_head(stored))
    for progress in stored.said:
        for _ in response.add(progress, now=0):
            pass
    run = stored.run
    updated = _epoch(run["updated_at"])
    if run["status"] in ("pending", "running"):
        status = "queued" if run["status"] == "pending" else "in_progress"
        return json_response_of(response.show(stored.ended, status=status), {})
    for _ in response.add(stored.ended, now=updated):
        pass
    return json_response_of(response.show(stored.ended, now=updated), {})


async def _request(services: Services, caller: Principal, body: ResponseCreate) -> ChatRequest:
    if body.prompt is not None:
        raise BadRequest("prompt: prompt templates are not offered; send `input`")
    if body.previous_response_id is not None and body.conversation is not None:
        raise BadRequest("conversation: give either this or `previous_response_id`")
    thread_id, checkpoint_id = _conversation(body), None
    if body.previous_response_id is not None:
        thread_id, checkpoint_id = await chat_responses.going_on_from(services, caller, given=body.previous_response_id)
    given, metadata = body.given(), dict(body.metadata or {})
    messages, decisions = from_input(body.input), _decisions(body)
    if not messages and not (decisions and thread_id):
        raise BadRequest("input: there is no message in it")
    return ChatRequest(
        model=body.model,
        messages=messages,
        parameters={name: value for name, value in given.items() if name not in _OF_THE_REQUEST},
        metadata={**metadata, **({"user": body.user} if body.user is not None else {})},
        thread_id=thread_id,
        keep=body.store is not False,
        instructions=body.instructions,
        decisions=decisions,
        checkpoint_id=checkpoint_id,
        resumable=bool(body.background),
        note={
            "model": body.model,
            "previous_response_id": body.previous_response_id,
            "background": bool(body.background),
            "metadata": sorted(metadata),
        },
    )


def _conversation(body: ResponseCreate) -> str | None:
    if body.conversation is None:
        return None
    given = body.conversation if isinstance(body.conversation, str) else body.conversation.id
    try:
        return str(UUID(given.removeprefix("conv_")))
    except ValueError:
        raise BadRequest("conversation: must be the id of a thread") from None


def _decisions(body: ResponseCreate) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for at, item in enumerate(() if isinstance(body.input, str) else body.input):
        if item.type != "mcp_approval_response":
            continue
        if item.approval_request_id is None or item.approve is None:
            raise BadRequest(f"input.{at}: an mcp_approval_response needs `approval_request_id` and `approve`")
        rejection = {"type": "reject", **({"message": item.reason} if item.reason else {})}
        found[item.approval_request_id] = {"type": "approve"} if item.approve else rejection
    return found


def _head(chat: Chat, body: ResponseCreate, asked: ChatRequest) -> Head:
    given = body.given()
    return Head(
        id=response_id(chat.key),
        key=chat.key,
        model=body.model,
        created_at=_now(),
        server_label=body.model,
        background=bool(body.background),
        store=asked.keep,
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        metadata=body.metadata or {},
        echoed={name: given[name] for name in _ECHOED if name in given},
    )


def _stored_head(stored: StoredResponse) -> Head:
    note, metadata = stored.note, stored.run["metadata"]
    model = note.get("model") or metadata.get("graph_id") or stored.run["assistant_id"]
    return Head(
        id=response_id(stored.key),
        key=stored.key,
        model=model,
        created_at=_epoch(stored.run["created_at"]),
        server_label=model,
        background=bool(note.get("background")),
        instructions=stored.instructions,
        previous_response_id=note.get("previous_response_id"),
        metadata={name: str(metadata[name]) for name in note.get("metadata") or () if name in metadata},
        echoed={"user": metadata["user"]} if isinstance(metadata.get("user"), str) else {},
    )


def _epoch(time_text: str) -> int:
    return int(datetime.fromisoformat(time_text).timestamp())


def _now() -> int:
    return int(time.time())
