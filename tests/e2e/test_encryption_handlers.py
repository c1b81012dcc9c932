"""The SDK's encryption handlers: what they are given, the context that goes with it, and what they may not do."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.errors import BadRequestError, ConflictError, UnprocessableEntityError
from typer.testing import CliRunner

from api_services import api_services
from encryption_world import (
    MARK,
    PROJECT,
    WAYS,
    assistant_is_read,
    assistant_runs,
    client_of,
    places_of,
    serving,
    use_an_assistant,
)
from live_server import Client, LiveServer
from raw_storage import raw_tables
from waystation.cli.commands import app
from waystation.errors import ConfigError

pytestmark = pytest.mark.anyio


def in_context(**metadata: Any) -> dict[str, str]:
    return {"X-Encryption-Context": base64.b64encode(json.dumps(metadata).encode()).decode()}


RED, BLUE = in_context(tenant="red"), in_context(tenant="blue")


@pytest.fixture
async def handled(database_uri: str) -> AsyncGenerator[tuple[LiveServer, Client]]:
    with serving(database_uri, WAYS["handlers"]) as server:
        async with client_of(server) as client:
            yield server, client


async def test_each_context_has_its_own_key_and_readers_need_not_name_it(
    handled: tuple[LiveServer, Client], database_uri: str
) -> None:
    _, sdk = handled
    for headers in (RED, BLUE):
        thread_id = (await sdk.threads.create(metadata={"whose": MARK, "public": "yes"}, headers=headers))["thread_id"]
        await sdk.runs.wait(thread_id, "everywhere", input={"text": MARK}, headers=headers)
        assert (await sdk.threads.get(thread_id))["metadata"]["whose"] == MARK
        assert (await sdk.threads.get_state(thread_id))["values"]["text"] == MARK
    tables = await raw_tables(database_uri)
    assert places_of(MARK, tables) == []
    for tenant in ("red", "blue"):
        mine = f'"tenant": "{tenant}"'.encode()
        assert mine in tables["thread"]
        assert mine in tables["run"]
        assert f'{{"tenant":"{tenant}"}}'.encode() in tables["checkpoint_blobs"]
    assert b'"tenant": "blue"' in tables["store"], "of two that wrote the item the last one"


async def test_what_the_handler_leaves_plain_can_be_searched_for(handled: tuple[LiveServer, Client]) -> None:
    _, sdk = handled
    thread_id = (await sdk.threads.create(metadata={"public": "findable", "other": "not"}, headers=RED))["thread_id"]
    found = await sdk.threads.search(metadata={"public": "findable"})
    assert [thread["thread_id"] for thread in found] == [thread_id]
    assert found[0]["metadata"] == {"public": "findable", "other": "not"}
    assert await sdk.threads.search(metadata={"other": "not"}) == []


async def test_metadata_is_merged_member_by_member(handled: tuple[LiveServer, Client]) -> None:
    _, sdk = handled
    thread_id = (await sdk.threads.create(metadata={"a": "1", "b": "1"}, headers=RED))["thread_id"]
    await sdk.threads.update(thread_id, metadata={"b": "2", "c": "2"}, headers=RED)
    assert (await sdk.threads.get(thread_id))["metadata"] == {"a": "1", "b": "2", "c": "2"}
    run = await sdk.runs.create(thread_id, "everywhere", input={"text": "x"}, metadata={"d": "3"}, headers=RED)
    assert run["metadata"].items() >= {"a": "1", "b": "2", "c": "2", "d": "3"}.items()
    await sdk.runs.join(thread_id, run["run_id"])


async def test_an_assistant_of_one_context_runs_in_another(
    handled: tuple[LiveServer, Client], database_uri: str
) -> None:
    _, sdk = handled
    made = await sdk.assistants.create(
        "everywhere",
        context={"whisper": MARK},
        config={"tags": [MARK]},
        metadata={"public": "findable", "whose": MARK},
        headers=RED,
    )
    assert [a["metadata"] for a in await sdk.assistants.search(metadata={"public": "findable"})] == [made["metadata"]]
    thread_id = (await sdk.threads.create(metadata={"b": "1"}, headers=BLUE))["thread_id"]
    run = await sdk.runs.create(
        thread_id, made["assistant_id"], input={"text": "x"}, metadata={"c": "2"}, headers=BLUE, config={"metadata": {}}
    )
    assert run["metadata"].items() >= {"public": "findable", "whose": MARK, "b": "1", "c": "2"}.items()
    await sdk.runs.join(thread_id, run["run_id"])
    item: Any = await sdk.store.get_item(["notes"], "last")
    assert item["value"]["of"] == MARK
    thread: Any = await sdk.threads.get(thread_id)
    assert (thread["config"]["tags"], thread["config"]["configurable"]) == ([MARK], {"whisper": MARK})
    tables = await raw_tables(database_uri)
    assert places_of(MARK, tables) == []
    assert b'"tenant": "red"' in tables["assistant"]
    assert b'"tenant": "red"' in tables["run"]


async def test_assistants_are_encrypted_on_demand_and_anew_in_their_own_context(database_uri: str) -> None:
    with serving(database_uri, ("langgraph.json", {})) as server:
        async with client_of(server) as sdk:
            plain = await use_an_assistant(sdk)
    with serving(database_uri, WAYS["handlers"]) as server:
        async with client_of(server) as sdk:
            red = await sdk.assistants.create("everywhere", context={"whisper": MARK}, headers=RED)
    for arguments in (["--apply"], ["--apply", "--again"]):
        asked = ["encrypt", *arguments, "-c", str(PROJECT / "handlers.json")]
        result = await asyncio.to_thread(CliRunner().invoke, app, asked, env={"DATABASE_URI": database_uri})
        assert result.exit_code == 0, result.output
        tables = await raw_tables(database_uri)
        assert [name for name in places_of(MARK, tables) if name != "event_chunk"] == []
        assert tables["assistant"].count(b'"tenant": "red"') == 2, "the context, and its mirror in the config"
    with serving(database_uri, WAYS["handlers"]) as server:
        async with client_of(server) as sdk:
            await assistant_is_read(sdk, plain)
            await assistant_runs(sdk, plain)
            assert (await sdk.assistants.get(red["assistant_id"]))["context"] == {"whisper": MARK}


async def test_what_was_plain_is_encrypted_on_demand_in_no_context_of_others(database_uri: str) -> None:
    lowest = "00000000-0000-4000-8000-000000000000"  # rows are gone through by id
    with serving(database_uri, WAYS["handlers"]) as server:
        async with client_of(server) as sdk:
            await sdk.threads.create(thread_id=lowest, metadata={"whose": MARK}, headers=RED)
    with serving(database_uri, ("langgraph.json", {})) as server:
        async with client_of(server) as sdk:
            plain = (await sdk.threads.create(metadata={"whose": MARK}))["thread_id"]
    before = (await raw_tables(database_uri))["thread"].count(b'"tenant": "red"')
    asked = ["encrypt", "--apply", "-c", str(PROJECT / "handlers.json")]
    result = await asyncio.to_thread(CliRunner().invoke, app, asked, env={"DATABASE_URI": database_uri})
    assert result.exit_code == 0, result.output
    tables = await raw_tables(database_uri)
    assert "thread" not in places_of(MARK, tables)
    assert tables["thread"].count(b'"tenant": "red"') == before > 0
    with serving(database_uri, WAYS["handlers"]) as server:
        async with client_of(server) as sdk:
            assert (await sdk.threads.get(plain))["metadata"]["whose"] == MARK


async def test_a_run_that_waits_is_executed_in_the_context_it_was_made_in(
    handled: tuple[LiveServer, Client], database_uri: str
) -> None:
    _, sdk = handled
    thread_id = (await sdk.threads.create(headers=RED))["thread_id"]
    run = await sdk.runs.create(thread_id, "everywhere", input={"text": MARK}, after_seconds=1, headers=RED)
    await sdk.runs.join(thread_id, run["run_id"])
    tables = await raw_tables(database_uri)
    assert b'{"tenant":"red"}' in tables["checkpoint_blobs"]
    assert b"{}gAAAA" not in tables["checkpoint_blobs"], "nothing was sealed without the context"


@pytest.mark.parametrize("header", ["%", "bm90IGpzb24=", base64.b64encode(b"[1]").decode(), "e30" * 4000])
async def test_a_context_that_is_none_is_refused(header: str, handled: tuple[LiveServer, Client]) -> None:
    server, _ = handled
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        answer = await http.post("/threads", json={}, headers={"X-Encryption-Context": header})
    assert answer.status_code == 422
    assert "X-Encryption-Context" in answer.json()["detail"]


async def test_a_handler_that_fails_is_a_4xx_and_nothing_is_stored(handled: tuple[LiveServer, Client]) -> None:
    _, sdk = handled
    unknown = in_context(tenant="green")
    with pytest.raises(BadRequestError, match=r"encrypt\.json failed with KeyError"):
        await sdk.threads.create(metadata={"a": MARK, "mark": "green"}, headers=unknown)
    assert await sdk.threads.search(metadata={"mark": "green"}) == []
    thread_id = (await sdk.threads.create())["thread_id"]
    with pytest.raises(BadRequestError, match="KeyError"):
        await sdk.runs.create(thread_id, "everywhere", input={"text": "x"}, headers=unknown)
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


async def test_thread_values_cannot_be_searched_and_the_answer_says_so(handled: tuple[LiveServer, Client]) -> None:
    _, sdk = handled
    with pytest.raises(UnprocessableEntityError, match="values: the values of threads are encrypted"):
        await sdk.threads.search(values={"text": "x"})


async def test_keys_take_over_what_handlers_leave_and_handlers_read_what_keys_sealed(database_uri: str) -> None:
    with serving(database_uri, WAYS["keys"]) as server:
        async with client_of(server) as sdk:
            thread_id = (await sdk.threads.create(metadata={"secret": MARK}))["thread_id"]
            await sdk.runs.wait(thread_id, "everywhere", input={"text": MARK})
    with serving(database_uri, ("handlers.json", WAYS["keys"][1])) as server:
        async with client_of(server) as sdk:
            thread = await sdk.threads.get(thread_id)
            assert (thread["metadata"]["secret"], thread["values"]["text"]) == (MARK, MARK)
            await sdk.runs.wait(thread_id, "everywhere", input={"text": "more"})
            assert len((await sdk.threads.get_state(thread_id))["values"]["messages"]) == 2
    with serving(database_uri, WAYS["keys"]) as server:
        async with client_of(server) as sdk:
            with pytest.raises(ConflictError):
                await sdk.threads.get_state(thread_id)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("encryption = 1", "expected a langgraph_sdk.Encryption object, found a int"),
        ("from langgraph_sdk.encryption import Encryption\nencryption = Encryption()", "without handlers"),
        (
            "from langgraph_sdk.encryption import Encryption\nencryption = Encryption()\n"
            "@encryption.encrypt.blob\nasync def seal(ctx, blob): return blob",
            "encrypt.blob without decrypt.blob",
        ),
    ],
)
async def test_handlers_that_cannot_be_used_stop_the_start(
    code: str, told: str, tmp_path: Path, database_uri: str
) -> None:
    project = shutil.copytree(PROJECT, tmp_path / "project")
    (project / "handlers.py").write_text(code)
    with pytest.raises(ConfigError, match=told):
        async with api_services(database_uri, project=project / "handlers.json"):
            pass
