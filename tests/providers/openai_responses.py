"""OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from .openai_chat import ERRORS
from .turn import Asked, Event, Turn, input_tokens, sse, text_of


class Responses:
    """`POST …/responses`."""

    name = "responses"

    def asked(self, body: Mapping[str, Any], model: str | None) -> Asked:
        given = body.get("input") or ""
        items = cast("list[Any]", given if isinstance(given, list) else [{"role": "user", "content": given}])
        texts = [text_of(item.get("content") or item.get("output")) + item.get("role", "tool") for item in items]
        if body.get("instructions"):
            texts.append(str(body["instructions"]))
        return Asked(
            model=str(body.get("model") or model or ""),
            stream=bool(body.get("stream")),
            wants_usage=True,
            max_tokens=body.get("max_output_tokens"),
            input_tokens=input_tokens(texts, body.get("tools")),
            body=body,
        )

    def whole(self, turn: Turn) -> dict[str, Any]:
        status = {"length": "incomplete", "refusal": "incomplete"}.get(turn.finish, "completed")
        if turn.plan.fault in ("no_end", "no_finish"):
            status = "in_progress"
        return _response(turn, status, _items(turn))

    def events(self, turn: Turn) -> Iterator[Event]:
        numbers = iter(range(100_000))

        def event(kind: str, data: Mapping[str, Any], tokens: int = 0, *, end: bool = False) -> Event:
            body = {"type": kind, "sequence_number": next(numbers), **data}
            mark = kind in ("response.completed", "response.incomplete")
            return Event(sse(body, kind), tokens, is_end=end, is_mark=mark)

        yield event("response.created", {"response": _response(turn, "in_progress", [])})
        items = _items(turn)
        place = 0
        if turn.words:
            item, part = items[0], items[0]["content"][0]
            at = {"output_index": 0, "item_id": item["id"], "content_index": 0}
            last = not turn.calls
            opened: dict[str, Any] = {**item, "status": "in_progress", "content": []}
            yield event("response.output_item.added", {"output_index": 0, "item": opened})
            yield event("response.content_part.added", {**at, "part": {**part, "text": ""}})
            for word in turn.words:
                yield event("response.output_text.delta", {**at, "delta": word, "logprobs": []}, 1)
            yield event("response.output_text.done", {**at, "text": part["text"], "logprobs": []}, end=last)
            yield event("response.content_part.done", {**at, "part": part}, end=last)
            yield event("response.output_item.done", {"output_index": 0, "item": item}, end=last)
            place = 1
        for item, (_, _, pieces) in zip(items[place:], turn.calls, strict=True):
            at = {"output_index": place, "item_id": item["id"]}
            opened = {**item, "status": "in_progress", "arguments": ""}
            yield event("response.output_item.added", {"output_index": place, "item": opened})
            for piece in pieces:
                yield event("response.function_call_arguments.delta", {**at, "delta": piece}, 1)
            done = {**at, "arguments": item["arguments"], "name": item["name"]}
            yield event("response.function_call_arguments.done", done, end=True)
            yield event("response.output_item.done", {"output_index": place, "item": item}, end=True)
            place += 1
        kind = "response.incomplete" if turn.finish in ("length", "refusal") else "response.completed"
        yield event(kind, {"response": self.whole(turn)}, end=True)

    def error(self, kind: str, message: str | None = None) -> dict[str, Any]:
        type_, code, text = ERRORS[kind]
        return {"error": {"message": message or text, "type": type_, "param": None, "code": code}}

    def error_event(self, kind: str) -> bytes:
        data = {"type": "error", "code": kind, "message": f"The stream failed: {kind}", "param": None}
        return sse({**data, "sequence_number": 99}, "error")


def _items(turn: Turn) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if turn.words:
        part: dict[str, Any] = {"type": "output_text", "text": "".join(turn.words), "annotations": [], "logprobs": []}
        message = {"type": "message", "id": f"msg_{turn.id}", "role": "assistant", "status": "completed"}
        items.append({**message, "content": [part]})
    for id_, name, pieces in turn.calls:
        call = {"type": "function_call", "id": f"fc_{id_}", "call_id": id_, "name": name, "status": "completed"}
        items.append({**call, "arguments": "".join(pieces)})
    return items


def _response(turn: Turn, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    reason = {"length": "max_output_tokens", "refusal": "content_filter"}.get(turn.finish)
    usage = {
        "input_tokens": turn.asked.input_tokens,
        "input_tokens_details": {"cached_tokens": turn.cached},
        "output_tokens": turn.tokens,
        "output_tokens_details": {"reasoning_tokens": turn.plan.reasoning},
        "total_tokens": turn.asked.input_tokens + turn.tokens,
    }
    is_over = status != "in_progress"
    return {
        "id": turn.id,
        "object": "response",
        "created_at": 1_760_000_000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": turn.asked.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage if is_over and turn.plan.usage != "never" else None,
    }
