"""Keys that change: rows from before, rotation, keys that are missing, and a database that LangGraph encrypted."""

from __future__ import annotations

import asyncio
import json
import uuid
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph_sdk.errors import BadRequestError, ConflictError, UnprocessableEntityError
from typer.testing import CliRunner

from encryption_world import (
    KEYS,
    MARK,
    PLAIN,
    Way,
    assistant_is_read,
    assistant_runs,
    client_of,
    places_of,
    serving,
    use_an_assistant,
    use_everything,
)
from raw_storage import raw_tables
from waystation.cli.commands import app

pytestmark = pytest.mark.anyio

RING = {"k1": b"1" * 32, "k2": b"2" * 32, "other": b"3" * 16}
FIRST: Way = ("langgraph.json", {"encryption_keys": {"k1": RING["k1"]}, "langgraph_aes_json_keys": ("secret",)})
ROTATED: Way = (
    "langgraph.json",
    {"encryption_keys": {"k2": RING["k2"], "k1": RING["k1"]}, "langgraph_aes_json_keys": ("secret",)},
)
SECOND: Way = ("langgraph.json", {"encryption_keys": {"k2": RING["k2"]}, "langgraph_aes_json_keys": ("secret",)})
OFF: Way = ("langgraph.json", PLAIN)
LANGGRAPH: Way = ("langgraph.json", {"langgraph_aes_key": KEYS["langgraph_aes_key"]})

UNREADABLE = (
    *("checkpoint_blobs", "checkpoint_writes", "checkpoints", "thread", "run", "store", "cron"),
    *("assistant", "assistant_version"),
)


async def with_client(database_uri: str, way: Way, work: Any) -> Any:
    with serving(database_uri, way) as server:
        async with client_of(server) as sdk:
            return await work(sdk)


async def read_back(sdk: Any, made: dict[str, Any]) -> None:
    """What `use_everything` made is there and as it was."""
    for thread_id in (made["thread_id"], made["copy_id"]):
        thread = await sdk.threads.get(thread_id)
        assert thread["values"]["text"] == MARK
        assert thread["metadata"]["secret"] == MARK
        assert (await sdk.threads.get_state(thread_id))["values"]["text"] == MARK
        history = await sdk.threads.get_history(thread_id, limit=100)
        assert MARK in json.dumps(history[-1])
    runs = await sdk.runs.list(made["thread_id"], limit=100)
    assert {run["kwargs"]["input"]["text"] for run in runs if run["kwargs"]["input"]} == {MARK}
    assert (await sdk.store.get_item(["notes"], "own"))["value"] == {"text": MARK}
    assert (await sdk.crons.search())[0]["payload"]["input"] == {"text": MARK}
    await assistant_is_read(sdk, made["assistant_id"])
    await assistant_runs(sdk, made["assistant_id"])


async def encrypt(
    *arguments: str, database_uri: str, ring: str, json_keys: str = "secret"
) -> tuple[int, list[list[str]]]:
    """Exit code and rows of `waystation encrypt`."""
    environment = {
        "DATABASE_URI": database_uri,
        "WAYSTATION_ENCRYPTION_KEYS": ring,
        "LANGGRAPH_AES_JSON_KEYS": "secret",
    }
    config = str(Path(__file__).parents[1] / "fixtures" / "projects" / "encrypted" / "langgraph.json")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["encrypt", *arguments, "-c", config], env=environment)
    rows = [line.split() for line in result.output.splitlines()]
    return result.exit_code, [row for row in rows if len(row) == 6]


def ring_of(*names: str) -> str:
    return ",".join(f"{name}:{b64encode(RING[name]).decode()}" for name in names)


async def test_rows_from_before_are_read_and_encrypted_on_demand(database_uri: str) -> None:
    made = await with_client(database_uri, OFF, use_everything)
    await with_client(database_uri, FIRST, partial(read_back, made=made))
    assert places_of(MARK, await raw_tables(database_uri)) != []

    code, rows = await encrypt("--plan", database_uri=database_uri, ring=ring_of("k1"))
    assert code == 0
    assert {row[0] for row in rows if row[0] in UNREADABLE and int(row[2]) > 0} == set(UNREADABLE)
    assert sum(int(row[4]) for row in rows if row[0] in UNREADABLE) == 0
    code, _ = await encrypt("--apply", "--batch", "3", database_uri=database_uri, ring=ring_of("k1"))
    assert code == 0
    # Streams are gone minutes after their runs, and are not rewritten.
    assert [name for name in places_of(MARK, await raw_tables(database_uri)) if name != "event_chunk"] == []
    await with_client(database_uri, FIRST, partial(read_back, made=made))

    code, rows = await encrypt("--apply", database_uri=database_uri, ring=ring_of("k1"))
    assert (code, sum(int(row[4]) for row in rows if row[0] in UNREADABLE)) == (0, 0), "there is nothing left to do"
    assert {row[0] for row in rows} >= set(UNREADABLE)


async def test_after_a_rotation_the_old_key_can_go(database_uri: str) -> None:
    made = await with_client(database_uri, FIRST, use_everything)
    await with_client(database_uri, ROTATED, partial(read_back, made=made))
    code, rows = await encrypt("--apply", database_uri=database_uri, ring=ring_of("k2", "k1"))
    assert code == 0
    assert {row[0] for row in rows if row[0] in UNREADABLE and int(row[4]) > 0} == set(UNREADABLE)
    await with_client(database_uri, SECOND, partial(read_back, made=made))


async def test_a_missing_key_is_an_error_of_that_thread_alone(database_uri: str) -> None:
    made = await with_client(database_uri, FIRST, use_everything)

    async def look(sdk: Any) -> None:
        fresh = (await sdk.threads.create())["thread_id"]
        output = await sdk.runs.wait(fresh, "everywhere", input={"text": "new"})
        assert output["text"] == "new"
        for ask in (sdk.threads.get, sdk.threads.get_state, sdk.threads.get_history, sdk.threads.copy):
            with pytest.raises(ConflictError, match="'k1', which is not among this server's keys"):
                await ask(made["thread_id"])
        with pytest.raises(ConflictError, match="'k1'"):
            await sdk.runs.get(made["thread_id"], made["run_id"])
        failed = await sdk.runs.wait(made["copy_id"], "everywhere", input={"text": "x"}, raise_error=False)
        assert failed["__error__"]["error"] == "Undecipherable"
        assert "'k1'" in failed["__error__"]["message"]
        listed = {thread["thread_id"]: thread for thread in await sdk.threads.search(limit=100)}
        assert listed[fresh]["values"]["text"] == "new"
        assert listed[made["thread_id"]]["values"] is None
        assert "'k1'" in listed[made["thread_id"]]["error"]["message"]
        assert len(await sdk.runs.list(made["thread_id"], limit=100)) > 1
        with pytest.raises(ConflictError, match="'k1'"):
            await sdk.assistants.get(made["assistant_id"])
        hidden = next(a for a in await sdk.assistants.search(limit=100) if a["assistant_id"] == made["assistant_id"])
        assert (hidden["config"], hidden["context"], hidden["metadata"]) == ({}, {}, {})
        with pytest.raises(ConflictError, match="'k1'"):
            await sdk.assistants.set_latest(made["assistant_id"], 1)
        output = await sdk.runs.wait(None, made["assistant_id"], input={"text": "x"}, raise_error=False)
        assert output["__error__"]["error"] == "Undecipherable"

    await with_client(database_uri, SECOND, look)
    code, rows = await encrypt("--apply", database_uri=database_uri, ring=ring_of("k2"))
    assert code == 1
    unreadable = {row[0] for row in rows if row[0] in UNREADABLE and int(row[5]) > 0}
    assert unreadable == set(UNREADABLE)
    await with_client(database_uri, ROTATED, partial(read_back, made=made))


async def test_members_of_assistants_metadata_that_are_sealed_cannot_be_searched_for(database_uri: str) -> None:
    async def look(sdk: Any) -> None:
        made = await sdk.assistants.create("everywhere", metadata={"secret": MARK, "public": "yes"})
        found = await sdk.assistants.search(metadata={"public": "yes"})
        assert [one["metadata"] for one in found] == [{"secret": MARK, "public": "yes"}]
        assert await sdk.assistants.count(metadata={"public": "yes"}) == 1
        asked = {"secret": MARK}
        for ask in (
            sdk.assistants.search,
            sdk.assistants.count,
            partial(sdk.assistants.get_versions, made["assistant_id"]),
        ):
            with pytest.raises(UnprocessableEntityError, match=r"metadata\.secret"):
                await ask(metadata=asked)

    await with_client(database_uri, FIRST, look)


async def test_a_version_whose_context_is_sealed_is_shown_again(database_uri: str) -> None:
    async def look(sdk: Any) -> None:
        assistant_id = await use_an_assistant(sdk)
        again = await sdk.assistants.set_latest(assistant_id, 1)
        assert (again["context"], again["config"]["tags"]) == ({"whisper": "v1 " + MARK}, [MARK])
        emptied = await sdk.assistants.update(assistant_id, context={})
        assert (emptied["context"], emptied["config"]) == ({}, {"tags": [MARK]})
        replaced = await sdk.assistants.update(assistant_id, config={"configurable": {"whisper": MARK}})
        assert (replaced["context"], replaced["config"]) == ({"whisper": MARK}, {"configurable": {"whisper": MARK}})

    await with_client(database_uri, FIRST, look)


async def test_without_any_key_nothing_encrypted_is_shown_as_if_it_were_data(database_uri: str) -> None:
    made = await with_client(database_uri, FIRST, use_everything)

    async def look(sdk: Any) -> None:
        with pytest.raises(ConflictError, match="'k1'"):
            await sdk.threads.get(made["thread_id"])
        assert "aes-gcm" not in json.dumps(await sdk.threads.search(limit=100, select=["values", "interrupts"]))
        fresh = (await sdk.threads.create())["thread_id"]
        assert (await sdk.runs.wait(fresh, "everywhere", input={"text": "new"}))["text"] == "new"

    await with_client(database_uri, OFF, look)


async def test_a_queued_run_whose_key_is_gone_fails_and_says_which(database_uri: str) -> None:
    async def queue(sdk: Any) -> dict[str, Any]:
        thread_id = (await sdk.threads.create())["thread_id"]
        return await sdk.runs.create(thread_id, "everywhere", input={"text": MARK}, after_seconds=1)

    with serving(database_uri, FIRST, n_jobs_per_worker=0) as server:
        async with client_of(server) as sdk:
            run = await queue(sdk)

    async def look(sdk: Any) -> dict[str, Any]:
        return await sdk.runs.join(run["thread_id"], run["run_id"])

    output = await with_client(database_uri, SECOND, look)
    assert output["__error__"]["error"] == "Undecipherable"
    assert "'k1'" in output["__error__"]["message"]


@pytest.mark.parametrize("way", [FIRST, ("handlers.json", PLAIN)])
async def test_metadata_that_looks_encrypted_is_refused(way: Way, database_uri: str) -> None:
    async def look(sdk: Any) -> None:
        forged = {"note": {"__encryption__": {"key": "aes-gcm:k1", "data": ""}}}
        thread_id = (await sdk.threads.create())["thread_id"]
        for refused in (
            sdk.threads.create(metadata=forged),
            sdk.threads.update(thread_id, metadata=forged),
            sdk.runs.create(thread_id, "everywhere", input={"text": "x"}, metadata=forged),
        ):
            with pytest.raises(BadRequestError, match=r"metadata\.note: the member __encryption__ is reserved"):
                await refused
        state = await sdk.runs.wait(thread_id, "everywhere", input={"text": "x", "items": [forged]})
        assert forged in state["items"]
        assert (await sdk.threads.get(thread_id))["values"] == state

    await with_client(database_uri, way, look)


async def test_values_moved_to_another_thread_do_not_open(database_uri: str) -> None:
    made = await with_client(database_uri, FIRST, use_everything)
    moved = """
        update thread set "values" = (select "values" from thread where thread_id = %(from)s) where thread_id = %(to)s
    """
    async with await psycopg.AsyncConnection.connect(database_uri, autocommit=True) as conn:
        await conn.execute(moved, {"from": made["thread_id"], "to": made["copy_id"]})

    async def look(sdk: Any) -> None:
        with pytest.raises(ConflictError, match="was changed or moved"):
            await sdk.threads.get(made["copy_id"])

    await with_client(database_uri, FIRST, look)


async def test_a_database_that_langgraph_encrypted_is_served_and_taken_over(database_uri: str) -> None:
    thread_id = str(uuid.uuid4())
    serde = EncryptedSerializer.from_pycryptodome_aes(key=KEYS["langgraph_aes_key"].encode())
    async with AsyncPostgresSaver.from_conn_string(database_uri, serde=serde) as saver:
        config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"items": ["of LangGraph"], "text": MARK}
        checkpoint["channel_versions"] = {"items": "1", "text": "1"}
        await saver.aput(config, checkpoint, {"source": "input", "step": 1, "parents": {}}, {"items": "1", "text": "1"})

    async def look(sdk: Any) -> None:
        await sdk.threads.create(thread_id=thread_id, if_exists="do_nothing", metadata={"graph_id": "everywhere"})
        state = await sdk.threads.get_state(thread_id)
        assert state["values"] == {"items": ["of LangGraph"], "text": MARK, "messages": []}

    await with_client(database_uri, LANGGRAPH, look)
    await with_client(database_uri, (FIRST[0], FIRST[1] | LANGGRAPH[1]), look)
