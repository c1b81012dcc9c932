"""A thread's events over HTTP: commands in, one numbered sequence of events out, for as long as the client listens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, cast

from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from waystation.api.commands import Desk, answer, parse_call
from waystation.api.dependencies import CallerDep, JSONBytes, ServicesDep, ThreadId, services_of
from waystation.api.limits import parse_json, read_body
from waystation.api.long_answer import FILLER_S, SEND_BYTES, LongAnswer, Outlet, ensure_room
from waystation.api.routing import STREAMED, Router, errors
from waystation.api.run_answers import parse_event_id
from waystation.api.runs import LastEventId, origin_of
from waystation.api.sse import HEARTBEAT, EventStream, parse_modes
from waystation.errors import BadRequest, InvalidRequest, SlowReader
from waystation.events.filters import Filter, parse_filter
from waystation.events.protocol import ThreadEvent
from waystation.runs import thread_stream
from waystation.runs.graph_access import thread_not_found
from waystation.runs.thread_events import follow_thread, is_hidden
from waystation_db.json import dumps

router = Router(tags=["Thread events"])

_INVALID_JSON: Final = "Invalid JSON body"
_LIVE: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}

_COMMAND: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "title": "Command",
                    "required": ["id", "method"],
                    "properties": {
                        "id": {"type": "integer"},
                        "method": {"type": "string", "description": "Such as `run.start` or `input.respond`."},
                        "params": {"type": "object"},
                    },
                }
            }
        },
    }
}
_ENVELOPE: dict[str, Any] = {
    "type": "object",
    "title": "CommandAnswer",
    "required": ["type", "id"],
    "properties": {
        "type": {"enum": ["success", "error"]},
        "id": {"type": ["number", "string", "null"]},
        "result": {"type": "object"},
        "error": {"type": "string"},
        "message": {"type": "string"},
        "meta": {"type": "object"},
    },
}
_DETAIL: dict[str, Any] = {"$ref": "#/components/schemas/ErrorDetail"}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The command's answer; refusals of commands are answers, too",
        "content": {"application/json": {"schema": _ENVELOPE}},
    },
    400: {
        "description": "No command",
        "content": {"application/json": {"schema": {"anyOf": [_ENVELOPE | {"title": "CommandRefusal"}, _DETAIL]}}},
    },
}
_FILTER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "title": "EventStreamRequest",
                    "required": ["channels"],
                    "properties": {
                        "channels": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                        "namespaces": {
                            "type": "array",
                            "items": {"type": "array", "items": {"type": "string"}},
                            "description": "Only events at or below one of these.",
                        },
                        "depth": {"type": "integer", "minimum": 0, "description": "How far below."},
                        "since": {"type": "integer", "minimum": 0, "description": "Replay what came after."},
                    },
                }
            }
        },
    }
}


@router.post(
    "/threads/{thread_id}/commands",
    summary="Send a command to a thread",
    responses=_ANSWER | errors(503),
    openapi_extra=_COMMAND,
)
async def post_command(thread_id: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Start a run, answer what one asked, look at a thread's state. What comes of it is in the thread's events."""
    call = parse_call(await _json(request))
    if isinstance(call, dict):
        return JSONBytes(dumps(call), status_code=400)
    desk = Desk(services, caller, thread_id, origin_of(request, None))
    answered = await answer(desk, call)
    if answered["type"] == "success":
        answered["meta"] = {"applied_through_seq": 0}
    return JSONBytes(dumps(answered))


@router.post(
    "/threads/{thread_id}/stream/events",
    summary="Follow a thread's events",
    responses=STREAMED | errors(400, 503),
    openapi_extra=_FILTER,
)
async def stream_events(thread_id: ThreadId, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Server-sent events of all runs of the thread, those that are still kept first. Ends when the client leaves."""
    body = await _json(request)
    asked = parse_filter(cast("dict[str, Any]", body) if isinstance(body, dict) else {})
    ensure_room(request)
    if await is_hidden(services, caller, thread_id=thread_id):
        return StreamingResponse(_nothing(), media_type="text/event-stream", headers=_LIVE)
    source = follow_thread(services, caller, thread_id=thread_id, since=asked.since)
    return ThreadEventStream(source, asked)


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""  # which makes it a generator


@router.get(
    "/threads/{thread_id}/stream",
    summary="Stream everything that happens on a thread",
    responses=STREAMED | errors(404, 503),
)
async def stream_thread(
    thread_id: ThreadId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    stream_modes: Annotated[
        list[str] | None, Query(description="`run_modes`, `lifecycle`, `state_update`; repeated or joined by commas.")
    ] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """What the thread's runs stream by their own modes, one run after the other. Ends when the client leaves."""
    modes: list[thread_stream.Mode] = [
        _thread_mode(mode) for mode in sorted(parse_modes(stream_modes) or ("run_modes",))
    ]
    after = None
    if last_event_id is not None and (after := parse_event_id(last_event_id)) is None:
        raise InvalidRequest("header.Last-Event-ID: must be an event's id, such as 1795246500525-0, or -1")
    ensure_room(request)
    if await is_hidden(services, caller, thread_id=thread_id):
        raise thread_not_found(thread_id)
    source = thread_stream.stream_thread(services, caller, thread_id=thread_id, modes=modes, after=after)
    return EventStream(source, with_ids=True)


def _thread_mode(mode: str) -> thread_stream.Mode:
    for known in thread_stream.MODES:
        if mode == known:
            return known
    raise InvalidRequest(f"Invalid stream mode: {mode[:200]}")


class ThreadEventStream(LongAnswer):
    """An SSE response of a thread's events. It has no end of its own."""

    filler = HEARTBEAT

    def __init__(self, source: AsyncGenerator[Sequence[ThreadEvent]], asked: Filter) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers=_LIVE,
            filler_s=FILLER_S,
        )
        self._source = source
        self._asked = asked

    async def produce(self, out: Outlet) -> bytes:
        async with contextlib.aclosing(self._source):
            async for batch in self._source:
                for chunk in encode_events([event for event in batch if self._asked.passes(event)]):
                    await out.send(chunk)
        raise SlowReader("the process stops")


def encode_events(events: Iterable[ThreadEvent]) -> Iterator[bytes]:
    """The events as SSE, in chunks of which only one event's data alone may be larger than `SEND_BYTES`."""
    parts: list[bytes] = []
    size = 0
    for event in events:
        if parts and size + len(event.data) > SEND_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts += (b"event: %b\r\ndata: " % event.method.encode(), event.data, b"\r\nid: %d\r\n\r\n" % event.seq)
        size += len(event.data)
    if parts:
        yield b"".join(parts)


async def _json(request: Request) -> Any:
    raw = await read_body(request, services_of(request).settings.max_body_bytes)
    try:
        return parse_json(raw)
    except InvalidRequest as error:
        nested = "nested" in error.message
        raise BadRequest(error.message if nested else _INVALID_JSON) from None
