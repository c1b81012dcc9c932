"""What a response was made from, listed by OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import httpx
import openai
import pytest

from e2e.openai_clients import CHAT, async_client, sync_client
from live_server import LiveServer, server_process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("items") / "server.log"
    with server_process(make_database(), log=log, project=CHAT) as running:
        yield running


@pytest.fixture
async def chat(server: LiveServer) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with async_client(server) as client:
        yield client


async def _all(ai: openai.AsyncOpenAI, response_id: str, **options: Any) -> list[Any]:
    options = {"order": "asc"} | options
    return [item async for item in ai.responses.input_items.list(response_id, **options)]


def _message(role: str, *texts: str, kind: str = "input_text") -> Any:
    return (role, [(kind, text) for text in texts])


def _told(item: Any) -> Any:
    return item.role, [(part.type, part.text) for part in item.content]


async def test_the_input_is_there_as_it_was_sent_without_the_instructions(chat: openai.AsyncOpenAI) -> None:
    sent: Any = [
        {"role": "developer", "content": "short answers"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is this?"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
                {"type": "input_file", "file_id": "file-1", "filename": "a.pdf"},
            ],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]
    made = await chat.responses.create(model="parrot", instructions="be kind", input=sent)
    developer, user, call, output = await _all(chat, made.id)
    assert _told(developer) == _message("developer", "short answers")
    assert [part.to_dict() for part in user.content] == sent[1]["content"]
    assert (call.type, call.call_id, call.name, call.arguments) == ("function_call", "c1", "f", '{"a":1}')
    assert (output.type, output.call_id, output.output) == ("function_call_output", "c1", "42")
    assert {item.status for item in (developer, user, call, output)} == {"completed"}


async def test_a_later_response_was_made_from_all_that_came_before(chat: openai.AsyncOpenAI) -> None:
    first = await chat.responses.create(model="slow", input="0", instructions="first")
    second = await chat.responses.create(model="slow", input="0.0", previous_response_id=first.id)
    fork = await chat.responses.create(model="slow", input="0.00", previous_response_id=first.id)
    begun = [_message("user", "0"), _message("assistant", "Working", kind="output_text")]
    assert [_told(item) for item in await _all(chat, first.id)] == begun[:1]
    for made, text in ((second, "0.0"), (fork, "0.00")):
        assert [_told(item) for item in await _all(chat, made.id)] == [*begun, _message("user", text)]


async def test_a_response_that_is_not_done_has_its_input(chat: openai.AsyncOpenAI) -> None:
    first = await chat.responses.create(model="slow", input="0")
    made = await chat.responses.create(model="slow", input="60", background=True, previous_response_id=first.id)
    try:
        assert [_told(item)[1][0][1] for item in await _all(chat, made.id)] == ["0", "Working", "60"]
    finally:
        await chat.responses.cancel(made.id)
    assert [_told(item)[1][0][1] for item in await _all(chat, made.id)] == ["0", "Working", "60"]


async def test_what_answered_a_question_is_an_item(chat: openai.AsyncOpenAI) -> None:
    asked = await chat.responses.create(model="asker", input="paint")
    answer = await chat.responses.create(model="asker", input="red, please", previous_response_id=asked.id)
    assert [_told(item)[1][0][1] for item in await _all(chat, answer.id)] == ["paint", "red, please"]


async def test_pages_show_each_item_once_in_either_order(chat: openai.AsyncOpenAI, server: LiveServer) -> None:
    same = {"type": "function_call", "call_id": "again", "name": "f", "arguments": "{}"}
    sent: Any = [{"role": "user", "content": f"message {n}"} for n in range(21)] + [same, same]
    made = await chat.responses.create(model="parrot", input=sent)
    oldest = [item.id for item in await _all(chat, made.id, limit=5)]
    assert len(set(oldest)) == 23
    newest = chat.responses.input_items.list(made.id)
    page = await newest
    assert (len(page.data), page.has_more) == (20, True)
    assert [item.id async for item in newest] == oldest[::-1]
    with sync_client(server) as ai:
        assert [item.id for item in ai.responses.input_items.list(made.id, limit=7)] == oldest[::-1]
    async with httpx.AsyncClient(base_url=server.url) as http:
        path = f"/v1/responses/{made.id}/input_items"
        after = (await http.get(path, params={"after": oldest[-3], "limit": 100, "order": "asc"})).json()
        last = (await http.get(path, params={"after": oldest[-1], "order": "asc"})).json()
    assert (after["object"], after["first_id"], after["last_id"]) == ("list", oldest[-2], oldest[-1])
    assert (len(after["data"]), after["has_more"]) == (2, False)
    assert last == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order": "up"}, "order"), ({"after": "msg_x"}, "after")],
)
async def test_what_is_wrong_is_named(
    chat: openai.AsyncOpenAI, server: LiveServer, query: dict[str, Any], param: str
) -> None:
    made = await chat.responses.create(model="slow", input="0")
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.get(f"/v1/responses/{made.id}/input_items", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_what_is_gone_or_was_never_kept_is_not_found(chat: openai.AsyncOpenAI) -> None:
    kept = await chat.responses.create(model="slow", input="0")
    await chat.responses.delete(kept.id)
    unkept = await chat.responses.create(model="slow", input="0", store=False)
    for given in (kept.id, unkept.id, "resp_1"):
        with pytest.raises(openai.NotFoundError, match="not found"):
            await chat.responses.input_items.list(given)
