"""The commands of the event streaming protocol: an envelope in, an envelope out, over HTTP and on a socket alike.

{"id": 1, "method": "run.start", "params": {...}} ──▶ {"type": "success", "id": 1, "result": {...}}
                                                  └─▶ {"type": "error", "id": 1, "error": code, "message": text}
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from waystation.api.routing import describe
from waystation.auth import Principal
from waystation.errors import BadRequest, Forbidden, TooManyRequests, Unauthorized, Unavailable, WaystationError
from waystation.events.filters import parse_filter
from waystation.runs import thread_commands
from waystation.runs.agent_tree import agent_tree
from waystation.runs.requests import JSONObject, RunConfig, SendTo
from waystation.runs.run_kwargs import Origin
from waystation.runs.thread_commands import Answers, Refused, RunStart
from waystation.services import Services

MAX_ANSWERS: Final = 1000
_NO_RUN: Final = "No active run is bound to this thread."
_ENVELOPE: Final = "Protocol commands must include an integer id and string method."

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A well-formed envelope."""

    id: int
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """Who calls, about which thread."""

    services: Services
    caller: Principal
    thread_id: str
    origin: Origin


class _Params(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _RunParams(_Params):
    config: RunConfig | None = None
    metadata: JSONObject | None = None


class _Start(_RunParams):
    assistant_id: str = Field(max_length=1024)
    input: Any = None
    strategy: Literal["reject", "enqueue", "interrupt", "rollback"] | None = Field(None, alias="multitaskStrategy")
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] | None = None


class _Response(_Params):
    interrupt_id: str
    response: Any = None


class _Respond(_RunParams):
    update: JSONObject | None = None
    goto: str | SendTo | list[str | SendTo] | None = None


class _Fork(_RunParams):
    checkpoint_id: str
    assistant_id: str = ""
    input: Any = None


class _Get(_Params):
    namespace: list[str] = Field(default_factory=list)
    keys: list[str] | None = None


class _List(_Params):
    namespace: list[str] = Field(default_factory=list)
    limit: int = Field(default=10, ge=1, le=1000)
    before: str | None = None


def parse_call(body: Any) -> Call | Answer:
    """The call in an envelope, or the refusal of what is none."""
    envelope = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    call_id, method, params = envelope.get("id"), envelope.get("method"), envelope.get("params")
    if not isinstance(call_id, int) or isinstance(call_id, bool) or not isinstance(method, str):
        return refusal(call_id if isinstance(call_id, str | int | float) else None, "invalid_argument", _ENVELOPE)
    return Call(call_id, method, cast("dict[str, Any]", params) if isinstance(params, dict) else {})


async def answer(desk: Desk, call: Call) -> Answer:
    """Do what a command asks.

    Raises:
        Unauthorized, Forbidden, TooManyRequests, Unavailable: for the transport to tell in its own way.
    """
    handler = _HANDLERS.get(call.method)
    if handler is None:
        return refusal(call.id, "unknown_command", f"Unknown protocol command: {call.method[:200]}")
    try:
        return success(call.id, await handler(desk, call.params))
    except Refused as refused:
        return refusal(call.id, refused.code, refused.message)
    except ValidationError as error:
        wrong = describe("params", error.errors(include_url=False, include_input=False))
        return refusal(call.id, "invalid_argument", wrong)
    except (Unauthorized, Forbidden, TooManyRequests, Unavailable):
        raise
    except WaystationError as error:
        return refusal(call.id, "unknown_error", f"{error.status}: {error.message}")


def success(call_id: int, result: Mapping[str, Any]) -> Answer:
    return {"type": "success", "id": call_id, "result": dict(result)}


def refusal(call_id: Any, code: str, message: str) -> Answer:
    return {"type": "error", "id": call_id, "error": code, "message": message}


def checked_thread(thread_id: str) -> str:
    """A thread's id in its canonical spelling. Raises Refused for what is none."""
    try:
        return str(uuid.UUID(thread_id))
    except ValueError:
        raise Refused("unknown_error", "422: Invalid thread ID") from None


async def _start(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(params.get("assistant_id"), str) or not params["assistant_id"]:
        raise Refused("invalid_argument", "run.start requires an assistant_id.")
    asked = _Start.model_validate(params)
    config, checkpoint_id = thread_commands.checkpoint_of_config(asked.config or RunConfig())
    start = RunStart(
        asked.assistant_id,
        asked.input,
        config,
        asked.metadata,
        asked.strategy or asked.multitask_strategy or "enqueue",
        checkpoint_id,
    )
    run = await thread_commands.start_run(
        desk.services, desk.caller, thread_id=checked_thread(desk.thread_id), start=start, origin=desk.origin
    )
    return {"run_id": run.key.run_id}


async def _respond(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    asked = _Respond.model_validate(params)
    answers = Answers(_responses(params), asked.update, asked.goto, asked.config or RunConfig(), asked.metadata)
    run = await thread_commands.answer_run(
        desk.services, desk.caller, thread_id=checked_thread(desk.thread_id), answers=answers, origin=desk.origin
    )
    return {"run_id": run.key.run_id}


def _responses(params: dict[str, Any]) -> dict[str, Any]:
    many: Any = params.get("responses")
    if many is None:
        many = [params]
    if not isinstance(many, list) or not many:
        raise Refused("invalid_argument", "input.respond requires at least one response.")
    entries = cast("list[Any]", many)
    if len(entries) > MAX_ANSWERS:
        raise Refused("invalid_argument", f"input.respond takes at most {MAX_ANSWERS} responses.")
    if not all(_names_interrupt(entry) for entry in entries):
        raise Refused("invalid_argument", "input.respond requires an interrupt_id.")
    found = [_Response.model_validate(entry) for entry in entries]
    return {entry.interrupt_id: entry.response for entry in found}


def _names_interrupt(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(cast("dict[str, Any]", entry).get("interrupt_id"), str)


async def _subscribe(_: Desk, params: dict[str, Any]) -> dict[str, Any]:
    """Over HTTP a subscription has nowhere to send: it is taken and has no effect."""
    check_subscription("subscription.subscribe", params)
    return {"subscription_id": str(uuid.uuid4()), "replayed_events": 0}


def check_subscription(method: str, params: dict[str, Any]) -> Any:
    """The filter that a subscription asks for. Raises Refused."""
    if not isinstance(params.get("channels"), list) or not params["channels"]:
        raise Refused("invalid_argument", f"{method} requires a non-empty channels array.")
    try:
        return parse_filter(params)
    except BadRequest as error:
        raise Refused("invalid_argument", error.message) from None


async def _unsubscribe(_: Desk, params: dict[str, Any]) -> dict[str, Any]:
    raise no_such_subscription(params)


def no_such_subscription(params: dict[str, Any]) -> Refused:
    """The refusal of a subscription that is not there."""
    return Refused("no_such_subscription", f"Unknown subscription: {str(params.get('subscription_id'))[:200]}")


async def _reconnect(_: Desk, params: dict[str, Any]) -> dict[str, Any]:
    """Over HTTP there is nothing to come back to."""
    raise Refused("no_such_run", _NO_RUN)


async def _tree(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    run_id: Any = params.get("run_id")
    if run_id is not None:
        try:
            run_id = str(uuid.UUID(run_id))
        except (ValueError, AttributeError, TypeError):
            raise Refused("no_such_run", f"Unknown run: {str(run_id)[:200]}") from None
    tree = await agent_tree(desk.services, desk.caller, thread_id=checked_thread(desk.thread_id), run_id=run_id)
    if tree is None:
        raise Refused("no_such_run", _NO_RUN)
    return {"tree": tree}


async def _state(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    asked = _Get.model_validate(params)
    return await thread_commands.thread_values(
        desk.services,
        desk.caller,
        thread_id=checked_thread(desk.thread_id),
        namespace=asked.namespace,
        keys=asked.keys,
    )


async def _checkpoints(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    asked = _List.model_validate(params)
    found = await thread_commands.list_checkpoints(
        desk.services,
        desk.caller,
        thread_id=checked_thread(desk.thread_id),
        namespace=asked.namespace,
        limit=asked.limit,
        before=asked.before,
    )
    return {"checkpoints": found}


async def _fork(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    asked = _Fork.model_validate(params)
    start = RunStart(
        asked.assistant_id,
        asked.input,
        asked.config or RunConfig(),
        asked.metadata,
        checkpoint_id=asked.checkpoint_id,
    )
    run = await thread_commands.fork_run(
        desk.services, desk.caller, thread_id=checked_thread(desk.thread_id), start=start, origin=desk.origin
    )
    return {"run_id": run.key.run_id, "thread_id": run.key.thread_id}


_HANDLERS: Final[dict[str, Callable[[Desk, dict[str, Any]], Awaitable[dict[str, Any]]]]] = {
    "run.start": _start,
    "input.respond": _respond,
    "subscription.subscribe": _subscribe,
    "subscription.unsubscribe": _unsubscribe,
    "subscription.reconnect": _reconnect,
    "agent.getTree": _tree,
    "state.get": _state,
    "state.listCheckpoints": _checkpoints,
    "state.fork": _fork,
}
