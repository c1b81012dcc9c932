"""OpenAI's models and chat completions, with assistants as models."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Request
from starlette.responses import Response

from waystation.api.dependencies import CallerDep, ServicesDep, ThreadId, json_response
from waystation.api.held_answer import HeldAnswer
from waystation.api.long_answer import ensure_room
from waystation.api.openai_completion import Answer
from waystation.api.openai_errors import OpenAIRouter, error_body, failed, openai_error, openai_errors
from waystation.api.openai_objects import CompletionObject, ModelList, ModelObject
from waystation.api.openai_stream import DONE, OpenAIStream, data_of
from waystation.api.runs import origin_of
from waystation.errors import BadRequest, RunFailed
from waystation.runs.cancel import cancel_because_client_left
from waystation.runs.chat import Chat, ChatRequest, begin_chat, progress_of
from waystation.runs.chat_bodies import CompletionCreate
from waystation.runs.chat_graph import ChatModel, chat_model, chat_models
from waystation.runs.chat_messages import from_chat
from waystation.runs.chat_turn import Ended
from waystation.services import Services
from waystation_db.json import dumps

router = OpenAIRouter(tags=["OpenAI"])

ThreadHeader = Annotated[
    ThreadId | None,
    Header(alias="X-Thread-Id", description="Ours: go on with this thread; only new messages are added to it."),
]

_STOPPING = "The server is stopping; send the request again."
_CHUNKS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": CompletionObject,
        "description": "The answer; with `stream` server-sent events of chunks, `[DONE]` at the end",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "/v1/models", summary="List models", responses={200: {"model": ModelList}}, operation_id="list_openai_models"
)
async def list_models(services: ServicesDep, caller: CallerDep) -> Response:
    """Every assistant whose graph has a `messages` state."""
    data = [_model_object(model) for model in await chat_models(services, caller)]
    return json_response({"object": "list", "data": data})


@router.get(
    "/v1/models/{model}",
    summary="Get a model",
    responses={200: {"model": ModelObject}, **openai_errors(404)},
    operation_id="get_openai_model",
)
async def get_model(model: str, services: ServicesDep, caller: CallerDep) -> Response:
    """An assistant by its id, its graph's name, or its own name."""
    return json_response(_model_object(await chat_model(services, caller, model)))


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    responses={**_CHUNKS, **openai_errors(404, 409, 422, 503)},
    operation_id="create_chat_completion",
)
async def create_completion(
    body: CompletionCreate,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    x_thread_id: ThreadHeader = None,
) -> Response:
    """Runs the assistant on the conversation. Leaving before the end stops the run."""
    _refuse_unoffered(body)
    ensure_room(request)
    chat = await begin_chat(services, caller, request=_request(body, x_thread_id), origin=origin_of(request, None))
    answer = Answer(chat.key, body.model, int(time.time()))
    headers = {"Content-Location": f"/threads/{chat.key.thread_id}/runs/{chat.key.run_id}"}

    async def leave() -> None:
        await cancel_because_client_left(services, chat.key)

    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        source = _stream(services, chat, answer, with_usage=with_usage)
        return OpenAIStream(source, on_leave=leave, headers=headers)
    stopping = openai_error(503, _STOPPING, code="unavailable", headers={"Retry-After": "2"})
    return HeldAnswer(_whole(services, chat, answer, headers), on_leave=leave, stopping=stopping)


async def _whole(services: Services, chat: Chat, answer: Answer, headers: dict[str, str]) -> Response:
    try:
        async for happened in progress_of(services, chat):
            for progress in happened:
                if not isinstance(progress, Ended):
                    answer.add(progress)
                    continue
                raise_failure(progress)
                answer.close(progress)
                return json_response_of(answer.completion(progress), headers)
    except Exception as error:  # the head has not gone out: the request's own boundary
        return failed(error)
    return openai_error(503, _STOPPING, code="unavailable")


async def _stream(services: Services, chat: Chat, answer: Answer, *, with_usage: bool) -> AsyncGenerator[bytes]:
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    yield data_of({**answer.chunk({"role": "assistant", "content": ""}), **usage})
    async for happened in progress_of(services, chat):
        out: list[bytes] = []
        for progress in happened:
            if not isinstance(progress, Ended):
                if text := answer.add(progress):
                    out.append(data_of({**answer.chunk({"content": text}), **usage}))
                continue
            try:
                raise_failure(progress)
            except RunFailed as failure:
                out.append(data_of(error_body(422, failure.message, code=failure.code)))
                break
            out += [data_of({**usage, **chunk}) for chunk in answer.last_chunks(progress, with_usage=with_usage)]
            out.append(DONE)
        yield b"".join(out)


def raise_failure(ended: Ended) -> None:
    """Raises RunFailed if the run did not come to its end."""
    match ended.status:
        case "success":
            return
        case "interrupted" | None:
            raise RunFailed("The run was cancelled")
        case "error" | "timeout":
            error = ended.error or {}
            raise RunFailed(f"The run failed: {error.get('error', 'Error')}: {error.get('message', '')}")


def json_response_of(value: dict[str, Any], headers: dict[str, str]) -> Response:
    """An answer that holds what graphs said: any value."""
    return Response(dumps(value), media_type="application/json", headers=headers)


def _request(body: CompletionCreate, thread_header: str | None) -> ChatRequest:
    given = body.given()
    metadata = dict(body.metadata or {})
    thread_id = thread_header or body.thread_id or _thread_of(metadata)
    if body.user is not None:
        metadata["user"] = body.user
    return ChatRequest(
        model=body.model,
        messages=from_chat(body.messages),
        parameters={name: given[name] for name in given.keys() - {"model", "messages", "stream", "metadata"}},
        metadata=metadata,
        thread_id=thread_id,
    )


def _thread_of(metadata: dict[str, str]) -> str | None:
    """A thread named in the metadata, where a client can send nothing else of ours."""
    given = metadata.pop("thread_id", None)
    if given is None:
        return None
    try:
        return str(UUID(given))
    except ValueError:
        raise BadRequest("metadata.thread_id: must be a UUID") from None


def _refuse_unoffered(body: CompletionCreate) -> None:
    if body.n not in (None, 1):
        raise BadRequest("n: a graph answers once; only 1 is possible")
    if body.logprobs or body.top_logprobs:
        raise BadRequest("logprobs: graphs do not give the probabilities of tokens")
    if body.audio is not None or set(body.modalities or ()) - {"text"}:
        raise BadRequest("modalities: answers are text")


def _model_object(model: ChatModel) -> dict[str, Any]:
    assistant = model.assistant
    return {
        "id": model.id,
        "object": "model",
        "created": int(datetime.fromisoformat(assistant["created_at"]).timestamp()),
        "owned_by": "waystation",
        "assistant_id": assistant["assistant_id"],
        "graph_id": assistant["graph_id"],
        "name": assistant["name"],
        "description": assistant["description"],
    }
