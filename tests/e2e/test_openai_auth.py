"""Who may do what under /v1: OpenAI's client sends its key as a bearer token, and what others made is not there."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import openai
import pytest
from langgraph_sdk import get_client

from e2e.openai_clients import CHAT, async_client, user
from live_server import LiveServer, server_process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    log = tmp_path_factory.mktemp("auth") / "server.log"
    with server_process(make_database(), log=log, project=CHAT.parent / "chat_auth") as running:
        yield running


async def test_a_wrong_key_is_refused_in_openais_shape(server: LiveServer) -> None:
    async with async_client(server, api_key="nobody") as ai:
        with pytest.raises(openai.AuthenticationError) as refused:
            await ai.chat.completions.create(model="slow", messages=[user("0")])
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "authentication_error")


async def test_a_graphs_name_is_a_model_for_everybody_and_an_assistant_for_its_owner(server: LiveServer) -> None:
    async with get_client(url=server.url, headers={"authorization": "Bearer user-a"}) as lg:
        mine = await lg.assistants.create("parrot", name="mine")
    async with async_client(server, api_key="user-a") as a, async_client(server, api_key="user-b") as b:
        assert {model.id async for model in a.models.list()} == {"slow", "parrot", "mine"}
        assert {model.id async for model in b.models.list()} == {"slow", "parrot"}
        await a.chat.completions.create(model="mine", messages=[user("0")])
        for name in ("mine", mine["assistant_id"]):
            with pytest.raises(openai.NotFoundError):
                await b.chat.completions.create(model=name, messages=[user("0")])
        answer = await b.chat.completions.create(model="slow", messages=[user("0")])
        assert answer.choices[0].message.content == "Working"


async def test_a_response_of_somebody_else_is_not_there(server: LiveServer) -> None:
    async with async_client(server, api_key="user-a") as a, async_client(server, api_key="user-b") as b:
        made: Any = await a.responses.create(model="slow", input="0")
        for act in (b.responses.retrieve, b.responses.cancel, b.responses.delete, b.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                await act(made.id)
        with pytest.raises(openai.BadRequestError):
            await b.responses.create(model="slow", input="0", previous_response_id=made.id)
        with pytest.raises(openai.NotFoundError):
            await b.responses.create(model="slow", input="0", conversation=made.waystation["thread_id"])
        assert (await a.responses.retrieve(made.id)).output_text == "Working"
