"""What a response was made from, as input items of OpenAI's Responses API.

    human, system ─▶ message                  as it was sent
    ai            ─▶ message, function_call   its words, and each tool that it called, whoever executed that
    tool          ─▶ function_call_output
    resume        ─▶ mcp_approval_response    for each decision; any other answer is the message that it was

Ids are the same in every listing of a response, and no two items have the same: pages go by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, cast

from waystation.api.openai_response import text_part
from waystation.errors import BadRequest
from waystation.runs.chat_messages import DEVELOPER, Said, said
from waystation.runs.chat_responses import ResponseInput
from waystation_db.json import dumps

JSONObject = dict[str, Any]

_FILE_MEMBERS: Final = ("file_data", "file_id", "filename", "file_url")


def input_items(given: ResponseInput) -> list[JSONObject]:
    """All of them, the oldest first."""
    items = [
        item
        for at, message in enumerate((*given.before, *given.sent))
        if (read := said(message)) is not None
        for item in _from_message(read, message, at)
    ]
    return _told_apart([*items, *_from_answers(given.answers)])


def page(items: Sequence[JSONObject], *, order: Literal["asc", "desc"], after: str | None, limit: int) -> JSONObject:
    """A list object with the items that come after one of them.

    Raises:
        BadRequest: `after` is none of them.
    """
    ordered = list(items if order == "asc" else reversed(items))
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise BadRequest(f"after: this response has no input item {after[:100]!r}")
    start = ids.index(after) + 1 if after is not None else 0
    shown = ordered[start : start + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + limit < len(ordered),
    }


def _from_message(read: Said, message: Any, at: int) -> Iterator[JSONObject]:
    content = cast("JSONObject", message).get("content") if isinstance(message, dict) else read.text
    name = read.id or str(at)
    match read.kind:
        case "ai":
            if read.text:
                yield _message(name, "assistant", [text_part(read.text)])
            for call in read.calls:
                called = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
                yield {"type": "function_call", "id": f"fc_{call.id}", **called, "status": "completed"}
        case "tool":
            output = content if isinstance(content, str) else list(_parts(content))
            told = {"call_id": read.answers, "output": output}
            yield {"type": "function_call_output", "id": f"fco_{name}", **told, "status": "completed"}
        case "human":
            yield _message(name, "user", list(_parts(content)))
        case _:
            kwargs = cast("JSONObject", message).get("additional_kwargs") if isinstance(message, dict) else None
            role = cast("JSONObject", kwargs or {}).get(DEVELOPER, "system")
            yield _message(name, role, list(_parts(content)))


def _message(name: str, role: str, content: list[JSONObject]) -> JSONObject:
    return {"type": "message", "id": f"msg_{name}", "role": role, "status": "completed", "content": content}


def _from_answers(answers: Mapping[str, Any]) -> Iterator[JSONObject]:
    """The items that answered what the graph asked. Words that answered several questions are one message."""
    words: dict[str, None] = {}
    for interrupt_id, answer in answers.items():
        decisions = cast("JSONObject", answer).get("decisions") if isinstance(answer, dict) else None
        if not isinstance(decisions, list):
            words.setdefault(answer if isinstance(answer, str) else dumps(answer).decode())
            continue
        for at, decision in enumerate(cast("list[Any]", decisions)):
            about = cast("JSONObject", decision) if isinstance(decision, dict) else {}
            yield {
                "type": "mcp_approval_response",
                "id": f"mcpa_{interrupt_id}_{at}",
                "approval_request_id": f"mcpr_{interrupt_id}_{at}",
                "approve": about.get("type") == "approve",
                "reason": about.get("message"),
            }
    for at, text in enumerate(words):
        yield _message(f"answer-{at}", "user", [{"type": "input_text", "text": text}])


def _parts(content: Any) -> Iterator[JSONObject]:
    """A message's content in the parts of the Responses API; parts that it does not know stay as they are."""
    if isinstance(content, str):
        yield {"type": "input_text", "text": content}
        return
    for part in cast("list[Any]", content) if isinstance(content, list) else ():
        if isinstance(part, str):
            yield {"type": "input_text", "text": part}
        elif isinstance(part, dict):
            yield _part(cast("JSONObject", part))


def _part(part: JSONObject) -> JSONObject:
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": part.get("text", "")}
        case "image_url":
            given = part.get("image_url")
            image = cast("JSONObject", given) if isinstance(given, dict) else {"url": given}
            return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
        case "file" if isinstance(part.get("file"), dict):
            file = cast("JSONObject", part["file"])
            return {"type": "input_file", **{name: file[name] for name in _FILE_MEMBERS if name in file}}
        case _:
            return part


def _told_apart(items: Iterable[JSONObject]) -> list[JSONObject]:
    """The same items; an id that was there before (a graph may use the id of a call again) gets a number."""
    seen: dict[str, int] = {}
    found: list[JSONObject] = []
    for item in items:
        times = seen[item["id"]] = seen.get(item["id"], 0) + 1
        found.append(item if times == 1 else {**item, "id": f"{item['id']}-{times}"})
    return found
