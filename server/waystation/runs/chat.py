"""A chat request becomes a run: which graph, with which messages, on which thread.

stateless       the client sends the whole conversation; the run's thread goes with it
on a thread     only what the thread does not have yet is added; a thread that waits is answered instead
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from waystation.auth import Principal
from waystation.errors import BadRequest, NotFound
from waystation.events import BEGINNING, End
from waystation.runs import threads
from waystation.runs.admission import create_on_thread, create_stateless
from waystation.runs.chat_answers import resume_by_decisions, resume_by_text
from waystation.runs.chat_graph import MESSAGES, ChatGraph, chat_graph
from waystation.runs.chat_messages import Said, said
from waystation.runs.chat_turn import Asked, Progress, Turn
from waystation.runs.requests import CheckpointRef, CommandBody, StatelessRunCreate, ThreadRunCreate
from waystation.runs.run_kwargs import Origin
from waystation.runs.state import get_state
from waystation.services import Services
from waystation_db.rows import RunKey

JSONObject = dict[str, Any]

INSTRUCTIONS_ID = "instructions"
"""Of the system message that stands for a response's `instructions`: the next one's takes its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """What a client asks for, whichever API it speaks. `messages` are in LangChain's form.

    `thread_id` names a thread to go on with, which is made if it is not there; `keep` keeps the one that is made.
    `decisions` answer approval requests. `checkpoint_id` goes on from an earlier point. `note` is kept with the run,
    together with the id of the message that it went on from (`after`).
    """

    model: str
    messages: Sequence[JSONObject]
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    thread_id: str | None = None
    keep: bool = False
    instructions: str | None = None
    decisions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    checkpoint_id: str | None = None
    resumable: bool = False
    note: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Chat:
    """A run that answers, and what reads it."""

    key: RunKey
    resumable: bool
    turn: Turn


@dataclass(frozen=True, slots=True)
class Past:
    """What a thread holds already."""

    messages: Sequence[Any] = ()
    asked: Sequence[Asked] = ()

    @property
    def last_id(self) -> str | None:
        """The id of its last message."""
        last = said(self.messages[-1]) if self.messages else None
        return last.id if last is not None else None


async def begin_chat(services: Services, caller: Principal, *, request: ChatRequest, origin: Origin) -> Chat:
    """Create the run.

    Raises:
        ModelNotFound, BadRequest: as `chat_graph`.
        ThreadBusy: the thread has an active run.
        InvalidRequest, NotFound: as `create_on_thread`.
    """
    graph = await chat_graph(services, caller, request.model)
    if request.thread_id is None:
        messages = [*_instructions(request, Past(), graph), *request.messages]
        body = _stateless(request, graph, messages)
        run = await create_stateless(services, caller, request=body, origin=origin)
        return Chat(run.key, run.resumable, Turn(graph.audible, before=messages))
    past = await _past(services, caller, request.thread_id, request.checkpoint_id)
    body = _on_thread(request, graph, past)
    run = await create_on_thread(services, caller, thread_id=request.thread_id, request=body, origin=origin)
    added = cast("JSONObject", body.input or {}).get(MESSAGES, [])
    return Chat(run.key, run.resumable, Turn(graph.audible, before=[*past.messages, *added]))


async def progress_of(services: Services, chat: Chat) -> AsyncGenerator[Sequence[Progress]]:
    """What happens in the run from its first event on, in batches; the last item of the last one is its `Ended`."""
    source = services.log.read(chat.key, after=BEGINNING, resumable=chat.resumable)
    async with aclosing(source):
        async for batch in source:
            if isinstance(batch, End):
                yield [chat.turn.end(batch)]
                return
            if happened := [progress for event in batch for progress in chat.turn.read(event)]:
                yield happened


def _common(request: ChatRequest, graph: ChatGraph, past: Past) -> dict[str, Any]:
    context = {name: value for name, value in request.parameters.items() if name in graph.parameters}
    if request.instructions is not None and INSTRUCTIONS_ID in graph.parameters:
        context[INSTRUCTIONS_ID] = request.instructions
    note = {"openai": {**request.note, "after": past.last_id}} if request.note else {}
    return {
        "assistant_id": graph.assistant_id,
        "context": context,
        "metadata": {**request.metadata, **note},
        "stream_mode": ["messages-tuple", "updates"],
        "stream_subgraphs": True,
        "stream_resumable": request.resumable,
    }


def _stateless(request: ChatRequest, graph: ChatGraph, messages: Sequence[JSONObject]) -> StatelessRunCreate:
    return StatelessRunCreate(
        **_common(request, graph, Past()),
        input={MESSAGES: list(messages)},
        on_completion="keep" if request.keep else "delete",
    )


def _on_thread(request: ChatRequest, graph: ChatGraph, past: Past) -> ThreadRunCreate:
    members = _common(request, graph, past)
    resume = None if request.checkpoint_id else _resume(request, past)
    if resume is not None:
        members["command"] = CommandBody(resume=resume)
    else:
        new = new_messages(request.messages, past.messages)
        if not new:
            raise BadRequest("The request has nothing that the thread does not have, and nothing waits for an answer")
        members["input"] = {MESSAGES: [*_instructions(request, past, graph), *new]}
    if request.checkpoint_id is not None:
        members["checkpoint"] = CheckpointRef(checkpoint_id=request.checkpoint_id)
    return ThreadRunCreate(**members, multitask_strategy="reject", if_not_exists="create")


def _resume(request: ChatRequest, past: Past) -> Any:
    """What answers the questions that the thread waits with; None if there are none, or nothing was said."""
    if not past.asked:
        return None
    if request.decisions:
        return resume_by_decisions(past.asked, request.decisions)
    words = [one.text for one in map(said, request.messages) if one is not None and one.kind == "human"]
    return resume_by_text(past.asked, words[-1]) if words else None


def new_messages(sent: Sequence[JSONObject], there: Sequence[Any]) -> list[JSONObject]:
    """What of a conversation a thread does not have: what follows the last answer in it, on a thread that has begun.

    A client that sends no answer sends only what is new; a system message that the thread has is left out.
    """
    if not there:
        return list(sent)
    answers = [at for at, message in enumerate(sent) if message["type"] == "ai"]
    if answers:
        return list(sent[answers[-1] + 1 :])
    known = {found.text for found in map(said, there) if found is not None and found.kind == "other"}
    return [message for message in sent if message["type"] != "system" or _text(message) not in known]


def _instructions(request: ChatRequest, past: Past, graph: ChatGraph) -> Iterator[JSONObject]:
    """A response's instructions as a message. They hold for one response: the one before's are taken back."""
    if request.instructions is not None and INSTRUCTIONS_ID not in graph.parameters:
        yield {"type": "system", "content": request.instructions, "id": INSTRUCTIONS_ID}
    elif any(found.id == INSTRUCTIONS_ID for found in map(said, past.messages) if found is not None):
        yield {"type": "remove", "content": "", "id": INSTRUCTIONS_ID}


def _text(message: JSONObject) -> str:
    found: Said | None = said(message)
    return "" if found is None else found.text


async def _past(services: Services, caller: Principal, thread_id: str, checkpoint_id: str | None) -> Past:
    if checkpoint_id is not None:
        at = {"checkpoint_id": checkpoint_id}
        return past_of(orjson.loads(await get_state(services, caller, thread_id=thread_id, checkpoint=at)))
    try:
        return past_of(orjson.loads(await threads.get_thread(services, caller, thread_id=thread_id)))
    except NotFound:
        return Past()


def past_of(found: Mapping[str, Any]) -> Past:
    """The messages and open questions that a thread or a thread state shows."""
    values = found.get("values")
    messages = cast("JSONObject", values).get(MESSAGES) if isinstance(values, dict) else None
    pending = cast("JSONObject | list[JSONObject]", found.get("interrupts") or [])
    if isinstance(pending, dict):  # a thread files them under its tasks
        pending = [one for task in pending.values() for one in cast("list[JSONObject]", task)]
    asked = [Asked(one["id"], one.get("value")) for one in pending]
    return Past(cast("list[Any]", messages) if isinstance(messages, list) else [], asked)
