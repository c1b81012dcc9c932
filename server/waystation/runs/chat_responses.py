"""Responses that were stored: a response is a run on a thread, and its id names both.

Nothing else is kept. What a response said is read from the thread's state as that run left it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import orjson

from waystation.auth import Principal
from waystation.errors import BadRequest, NotFound
from waystation.events import End
from waystation.runs import cancel, listing, prune, threads
from waystation.runs.chat import INSTRUCTIONS_ID, Chat, Past, past_of
from waystation.runs.chat_graph import MESSAGES, Audible, chat_graph
from waystation.runs.chat_messages import said
from waystation.runs.chat_turn import Ended, Progress, Turn
from waystation.runs.state import get_history
from waystation.services import Services
from waystation_db import runs
from waystation_db.rows import FINAL_STATUSES, RunKey

_ID: Final = re.compile(r"resp_([0-9a-f]{32})([0-9a-f]{32})")

JSONObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A run as a response: the run's object, and what it said so far."""

    key: RunKey
    run: Mapping[str, Any]
    said: Sequence[Progress]
    ended: Ended

    @property
    def note(self) -> Mapping[str, Any]:
        """What was kept of the request."""
        return cast("JSONObject", self.run["metadata"].get("openai") or {})

    @property
    def instructions(self) -> str | None:
        """The instructions that it was made with."""
        context: Mapping[str, Any] = self.run["kwargs"].get("context") or {}
        for message in _sent(self.run):
            if isinstance(message, dict) and cast("JSONObject", message).get("id") == INSTRUCTIONS_ID:
                return cast("JSONObject", message).get("content") or None
        return context.get(INSTRUCTIONS_ID)


@dataclass(frozen=True, slots=True)
class ResponseInput:
    """What a response was made from: the messages that its thread had, those that were sent, and the answers that were
    sent to what the graph had asked, by interrupt id."""

    before: Sequence[Any]
    sent: Sequence[Any]
    answers: Mapping[str, Any]


def response_id(key: RunKey) -> str:
    """The id of a run as a response."""
    return f"resp_{UUID(key.thread_id).hex}{UUID(key.run_id).hex}"


def key_of(caller: Principal, given: str) -> RunKey | None:
    """The run that an id names; None if it is no such id."""
    found = _ID.fullmatch(given)
    return None if found is None else RunKey(caller.tenant_id, str(UUID(found[1])), str(UUID(found[2])))


async def stored_response(services: Services, caller: Principal, *, given: str) -> StoredResponse:
    """A response as it is now. Raises NotFound."""
    key, run = await _run(services, caller, given)
    left = await _left_by(services, caller, key)
    before, after = _split(run, left)
    turn = Turn(Audible(), before=before)
    done = [progress for message in after for progress in turn.read_message(message)]
    if left.asked:
        turn.ask({"id": one.id, "value": one.value} for one in left.asked)
    status = run["status"]
    error = await _error(services, key) if status in ("error", "timeout") else None
    end = End(status if status in FINAL_STATUSES else None, None, error)
    return StoredResponse(key, run, done, turn.end(end))


async def follow_response(services: Services, caller: Principal, *, given: str) -> tuple[Chat, StoredResponse]:
    """A response whose events can be read again from the first one on. Raises NotFound, BadRequest."""
    stored = await stored_response(services, caller, given=given)
    state = await listing.run_state(services, stored.key)
    if state is None or not state.resumable:
        raise BadRequest("stream: only a response that was created with `background` can be streamed again")
    graph = await chat_graph(services, caller, stored.run["assistant_id"])
    before, _ = _split(stored.run, await _left_by(services, caller, stored.key))
    return Chat(stored.key, True, Turn(graph.audible, before=before)), stored


async def response_input(services: Services, caller: Principal, *, given: str) -> ResponseInput:
    """What a response was made from, whether it has begun or not; its instructions are none of it. Raises NotFound."""
    key, run = await _run(services, caller, given)
    states = await _states(services, caller, key)
    if states:
        past = past_of(states[0])
    else:  # it has not begun: what it goes on from is what the thread has
        past = past_of(orjson.loads(await threads.get_thread(services, caller, thread_id=key.thread_id)))
    before = past.messages[: _begin(run, [found.id if found else None for found in map(said, past.messages)])]
    command: JSONObject = run["kwargs"].get("command") or {}
    answers: object = command.get("resume")
    return ResponseInput(
        before=[message for message in before if not _is_instructions(message)],
        sent=[message for message in _sent(run) if not _is_instructions(message)],
        answers=cast("JSONObject", answers) if isinstance(answers, dict) else {},
    )


async def going_on_from(services: Services, caller: Principal, *, given: str) -> tuple[str, str | None]:
    """The thread of a response, and its checkpoint if the thread has gone on since. Raises BadRequest."""
    try:
        key, _ = await _run(services, caller, given)
    except NotFound as error:
        raise BadRequest(f"previous_response_id: {error.message}") from None
    faces = await listing.list_runs(
        services, caller, thread_id=key.thread_id, limit=1, offset=0, status=None, select=["run_id"]
    )
    if [face["run_id"] for face in orjson.loads(faces)] == [key.run_id]:
        return key.thread_id, None
    states = await _states(services, caller, key)
    if not states:
        raise BadRequest("previous_response_id: what this response left behind is no longer stored")
    return key.thread_id, states[0]["checkpoint_id"]


async def cancel_response(services: Services, caller: Principal, *, given: str) -> StoredResponse:
    """Stop a response and wait until it has; one that is final stays as it is. Raises NotFound."""
    key, _ = await _run(services, caller, given)
    try:
        await cancel.cancel_run(services, caller, thread_id=key.thread_id, run_id=key.run_id, action="interrupt")
        await cancel.until_final(services, key, resumable=False)
    except NotFound:
        pass
    return await stored_response(services, caller, given=given)


async def delete_response(services: Services, caller: Principal, *, given: str) -> None:
    """Delete a response's run, and the thread that was made for it once no other is left. Raises NotFound."""
    key, _ = await _run(services, caller, given)
    await cancel.delete_run(services, caller, thread_id=key.thread_id, run_id=key.run_id)
    thread = orjson.loads(await threads.get_thread(services, caller, thread_id=key.thread_id))
    others = await listing.list_runs(
        services, caller, thread_id=key.thread_id, limit=1, offset=0, status=None, select=["run_id"]
    )
    if "openai" in thread["metadata"] and not orjson.loads(others):
        await prune.delete_thread(services, caller, thread_id=key.thread_id)


async def _run(services: Services, caller: Principal, given: str) -> tuple[RunKey, JSONObject]:
    key = key_of(caller, given)
    if key is not None:
        try:
            run = await listing.get_run(services, caller, thread_id=key.thread_id, run_id=key.run_id)
            return key, orjson.loads(run)
        except NotFound:
            pass
    raise NotFound(f"Response with id '{given[:100]}' not found.")


async def _left_by(services: Services, caller: Principal, key: RunKey) -> Past:
    states = await _states(services, caller, key)
    return past_of(states[0]) if states else Past()


async def _states(services: Services, caller: Principal, key: RunKey) -> list[JSONObject]:
    """The newest state that the run made, if it made one."""
    found = await get_history(services, caller, thread_id=key.thread_id, limit=1, metadata={"run_id": key.run_id})
    return orjson.loads(found)


async def _error(services: Services, key: RunKey) -> JSONObject | None:
    async with services.db.connection() as conn:
        found = await runs.run_output(conn, key)
    return found.error if found is not None else None


def _sent(run: Mapping[str, Any]) -> list[Any]:
    given = run["kwargs"].get("input")
    return cast("JSONObject", given).get(MESSAGES, []) if isinstance(given, dict) else []


def _split(run: Mapping[str, Any], left: Past) -> tuple[list[Any], list[Any]]:
    """A run's messages apart from those before it: all up to the one that it went on from, and those it was sent."""
    sent = {message["id"] for message in _sent(run)}
    ids = [found.id if found is not None else None for found in map(said, left.messages)]
    start = _begin(run, ids)
    rest = list(zip(left.messages[start:], ids[start:], strict=True))
    before = [*left.messages[:start], *(message for message, id_ in rest if id_ in sent)]
    return before, [message for message, id_ in rest if id_ not in sent]


def _begin(run: Mapping[str, Any], ids: Sequence[str | None]) -> int:
    """How many of the messages with these ids are from before the run."""
    note: JSONObject = run["metadata"].get("openai") or {}
    after: str | None = note.get("after")
    return ids.index(after) + 1 if after in ids else 0


def _is_instructions(message: Any) -> bool:
    return isinstance(message, dict) and cast("JSONObject", message).get("id") == INSTRUCTIONS_ID
