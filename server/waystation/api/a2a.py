"""A2A: each assistant as an agent for other agents, JSON-RPC at `/a2a/{assistant_id}` and a card that describes it.

Both versions of the protocol are spoken at the same address; the name of the method tells which: `message/send` is 0.3,
`SendMessage` is 1.0.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Header, Query, Request
from starlette.responses import Response

from waystation.api.a2a_card import SCOPE_HEADER, agent_card
from waystation.api.a2a_wire import Wire, Wire03, Wire10
from waystation.api.dependencies import CallerDep, JSONBytes, ServicesDep, json_response
from waystation.api.long_answer import ensure_room
from waystation.api.routing import Router
from waystation.api.rpc import (
    ANSWER,
    BODY,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Call,
    MessageStream,
    RpcError,
    id_of,
    parse_call,
    read_json,
    refused,
    success,
)
from waystation.api.runs import origin_of
from waystation.api.sse import WaitingJSON
from waystation.auth import Principal
from waystation.errors import BadRequest, Conflict, InvalidRequest, NotFound
from waystation.runs import tasks, tools
from waystation.runs.task_parts import NotTaken
from waystation.runs.tasks import HistoryWish, Task, Working
from waystation.services import Services
from waystation_db.tools import ToolRow

router = Router(tags=["A2A"])

TASK_NOT_FOUND: Final = -32001
NOT_CANCELABLE: Final = -32002
NO_PUSH: Final = -32003
UNSUPPORTED: Final = -32004
CONTENT_TYPE: Final = -32005
NO_EXTENDED_CARD: Final = -32007
WRONG_VERSION: Final = -32009

_SEND: Final = frozenset({"message/send", "SendMessage"})
_STREAM: Final = frozenset({"message/stream", "SendStreamingMessage"})
_GET: Final = frozenset({"tasks/get", "GetTask"})
_CANCEL: Final = frozenset({"tasks/cancel", "CancelTask"})
_REJOIN: Final = frozenset({"tasks/resubscribe", "SubscribeToTask"})
_REFUSED: Final = {
    "agent/getAuthenticatedExtendedCard": (NO_EXTENDED_CARD, "There is no extended card: the card says everything"),
    "GetExtendedAgentCard": (NO_EXTENDED_CARD, "There is no extended card: the card says everything"),
    "ListTasks": (UNSUPPORTED, "Tasks are not listed; the runs of a context are, at /threads/{contextId}/runs"),
}
_PUSH: Final = "PushNotificationConfig"

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: ANSWER,
    400: {"description": "A stream is asked for, and the Accept header does not take one"},
    503: {"description": "Too many tasks are waiting"},
}

ScopeHeader = Annotated[
    str | None,
    Header(alias=SCOPE_HEADER, description="Histories of the whole `context` (default) or the `task` alone."),
]


@router.get(
    "/.well-known/agent-card.json",
    summary="Describe an assistant as an A2A agent",
    responses={
        200: {"model": dict[str, Any]},
        400: {"description": "No assistant is named"},
        404: {"description": "There is no such assistant"},
    },
)
async def get_card(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    assistant_id: Annotated[str | None, Query(description="UUID of an assistant, or the name of a graph.")] = None,
) -> Response:
    """The agent card."""
    if not assistant_id:
        error = {"code": INVALID_PARAMS, "message": "Missing required query parameter: assistant_id"}
        return json_response({"error": error, "detail": error["message"]}, status_code=400)
    assistant = await _find(services, caller, assistant_id)
    takes, _ = await tools.graph_schemas(services, caller, assistant.assistant_id)
    auth = services.project.auth.openapi if services.project.auth else None
    base = str(request.base_url).rstrip("/") + request.app.prefix
    return json_response(agent_card(assistant, takes, url=f"{base}/a2a/{assistant.assistant_id}", auth=auth))


@router.post("/a2a/{assistant_id}", summary="Call an assistant as an A2A agent", responses=_ANSWERS, openapi_extra=BODY)
async def call_a2a(
    assistant_id: str,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    langgraph_a2a_history_scope: ScopeHeader = None,
) -> Response:
    """Agent2Agent protocol 0.3 and 1.0: send a message, stream, get, cancel and rejoin tasks. The context of a task is
    a thread."""
    body: Any = None
    try:
        body = await read_json(request)
        call = parse_call(body)
        if "waystation.api.a2a_requests" not in sys.modules:
            await asyncio.to_thread(importlib.import_module, "waystation.api.a2a_requests")
        scope = "task" if langgraph_a2a_history_scope == "task" else "context"
        exchange = _Exchange(services, caller, request, assistant_id, HistoryWish(scope=scope))
        return await exchange.answer(call)
    except RpcError as error:
        return refused(id_of(body), error)
    except NotTaken as error:
        return refused(id_of(body), RpcError(CONTENT_TYPE, error.message))
    except (InvalidRequest, BadRequest, NotFound, Conflict) as error:
        return refused(id_of(body), RpcError(INVALID_PARAMS, error.message))


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, services: Services, caller: Principal, request: Request, assistant_id: str, wish: HistoryWish
    ) -> None:
        from waystation.api import a2a_requests  # loaded by now, off the loop

        self._requests = a2a_requests
        self._services = services
        self._caller = caller
        self._request = request
        self._assistant_id = assistant_id
        self._wish = wish

    async def answer(self, call: Call) -> Response:
        """The answer to a call."""
        _check_version(self._request.headers.get("a2a-version"))
        assistant = await _find(self._services, self._caller, self._assistant_id)
        self._assistant_id = assistant.assistant_id
        method = call.method
        wire: Wire = Wire03() if "/" in method else Wire10()
        if method in _SEND:
            return await self._send(call, wire)
        if method in _STREAM:
            return await self._stream(call, wire)
        if method in _GET:
            return await self._get(call, wire)
        if method in _CANCEL:
            return await self._cancel(call, wire)
        if method in _REJOIN:
            return await self._rejoin(call, wire)
        if _PUSH.lower() in method.lower():
            raise RpcError(NO_PUSH, "Push notifications are not supported")
        raise RpcError(*_REFUSED.get(method, (METHOD_NOT_FOUND, f"Method not found: {method[:100]}")))

    async def _send(self, call: Call, wire: Wire) -> Response:
        sending = self._sending(call)
        ensure_room(self._request)
        begun = await self._begin(sending.message, streams=False)
        wish = replace(self._wish, length=sending.history_length)
        if not sending.waits:
            return JSONBytes(success(call.id, wire.sent(tasks.submitted(begun))))

        async def result() -> bytes:
            task = await tasks.finished(self._services, self._caller, begun, wish=wish)
            return success(call.id, wire.sent(task))

        return WaitingJSON(result())

    async def _stream(self, call: Call, wire: Wire) -> Response:
        if (refusal := self._no_events()) is not None:
            return refusal
        sending = self._sending(call)
        ensure_room(self._request)
        begun = await self._begin(sending.message, streams=True)
        return MessageStream(_messages(call, wire, tasks.follow(self._services, self._caller, begun)))

    async def _get(self, call: Call, wire: Wire) -> Response:
        asking = self._asking(call)
        try:
            wish = replace(self._wish, length=asking.history_length)
            task = await tasks.get(self._services, self._caller, task_id=asking.task_id, wish=wish)
        except NotFound:
            raise _no_task(asking.task_id, asking.context_id) from None
        if asking.context_id not in (None, task.name.thread_id):
            raise _no_task(asking.task_id, asking.context_id)
        return JSONBytes(success(call.id, wire.task(task)))

    async def _cancel(self, call: Call, wire: Wire) -> Response:
        asking = self._asking(call)
        ensure_room(self._request)
        try:
            task = await tasks.cancel(self._services, self._caller, task_id=asking.task_id)
        except NotFound:
            raise _no_task(asking.task_id, asking.context_id) from None
        except Conflict as error:
            raise RpcError(NOT_CANCELABLE, error.message) from None
        return JSONBytes(success(call.id, wire.task(task)))

    async def _rejoin(self, call: Call, wire: Wire) -> Response:
        if (refusal := self._no_events()) is not None:
            return refusal
        asking = self._asking(call)
        ensure_room(self._request)
        try:
            steps = await tasks.rejoin(self._services, self._caller, task_id=asking.task_id)
        except NotFound:
            raise _no_task(asking.task_id, asking.context_id) from None
        except Conflict as error:
            raise RpcError(UNSUPPORTED, error.message) from None
        return MessageStream(_messages(call, wire, steps))

    def _sending(self, call: Call) -> Any:
        read = self._requests.sending03 if "/" in call.method else self._requests.sending10
        sending = read(call)
        if sending.pushes:
            raise RpcError(NO_PUSH, "Push notifications are not supported")
        return sending

    def _asking(self, call: Call) -> Any:
        return (self._requests.asking03 if "/" in call.method else self._requests.asking10)(call)

    async def _begin(self, message: tasks.Incoming, *, streams: bool) -> tasks.Begun:
        try:
            return await tasks.begin(
                self._services,
                self._caller,
                assistant=self._assistant_id,
                message=message,
                streams=streams,
                origin=origin_of(self._request, None),
            )
        except NotFound as error:
            raise RpcError(TASK_NOT_FOUND, error.message) from None
        except Conflict as error:
            raise RpcError(UNSUPPORTED, error.message) from None

    def _no_events(self) -> Response | None:
        accept = self._request.headers.get("accept", "*/*").lower()
        if any(kind in accept for kind in ("text/event-stream", "*/*", "text/*")):
            return None
        text = "Accept header must include text/event-stream for streaming"
        return json_response({"error": text, "detail": text}, status_code=400)


async def _find(services: Services, caller: Principal, name: str) -> ToolRow:
    try:
        return await tools.find_tool(services, caller, name=name)
    except NotFound:
        raise NotFound(f"Assistant '{name[:100]}' not found") from None


async def _messages(call: Call, wire: Wire, steps: AsyncGenerator[Task | Working]) -> AsyncGenerator[bytes]:
    first = True
    async for step in steps:
        for shown in wire.steps(step, first=first):
            yield success(call.id, shown)
        first = False


def _no_task(task_id: str, context_id: str | None) -> RpcError:
    where = "" if context_id is None else f" in context '{context_id[:100]}'"
    return RpcError(TASK_NOT_FOUND, f"Task not found: {task_id[:100]}{where}")


def _check_version(version: str | None) -> None:
    if version is not None and version.split(".")[0] not in ("0", "1"):
        raise RpcError(WRONG_VERSION, "The versions of the protocol that are spoken here are 0.3 and 1.0")
