"""For tests of encryption at rest: servers that encrypt in different ways, and a client that stores a marker wherever
one can."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langgraph_sdk import get_client

from live_server import Client, LiveServer, live_server_on
from waystation.config import Settings

PROJECT = Path(__file__).parent / "fixtures" / "projects" / "encrypted"
MARK = "the-secret-that-is-nowhere"
MODES = ["values", "updates", "messages", "custom", "tasks", "checkpoints", "debug"]
KEYS: dict[str, Any] = {"langgraph_aes_key": "0123456789abcdef0123456789abcdef", "langgraph_aes_json_keys": ("secret",)}
PLAIN: dict[str, Any] = {}

Way = tuple[str, dict[str, Any]]
WAYS: dict[str, Way] = {"keys": ("langgraph.json", KEYS), "handlers": ("handlers.json", {})}


@contextmanager
def serving(database_uri: str, way: Way, **settings: Any) -> Generator[LiveServer]:
    chosen: dict[str, Any] = {"n_jobs_per_worker": 4, **way[1], **settings}
    given = Settings(**chosen)
    with live_server_on(database_uri, project=PROJECT / way[0], settings=given) as server:
        yield server


def client_of(server: LiveServer) -> Client:
    """The official client of a server."""
    return get_client(url=server.url)


async def use_everything(sdk: Client) -> dict[str, Any]:
    """Put the marker wherever a client can put it, and read all of it back."""
    thread = await sdk.threads.create(metadata={"secret": MARK, "public": "yes"})
    thread_id = thread["thread_id"]
    assert thread["metadata"]["secret"] == MARK
    asked = {"text": MARK, "asks": True}
    context = {"whisper": MARK}
    metadata = {"secret": MARK}
    streamed = [
        part.event
        async for part in sdk.runs.stream(
            thread_id, "everywhere", input=asked, context=context, stream_mode=MODES, stream_resumable=True
        )
    ]
    assert {"custom", "values", "debug"} <= set(streamed)
    assert MARK in json.dumps((await sdk.threads.get(thread_id))["interrupts"])
    await sdk.runs.wait(thread_id, "everywhere", command={"resume": MARK}, metadata=metadata)
    await sdk.runs.wait(thread_id, "everywhere", input={"text": MARK, "fails": True, "asks": False}, raise_error=False)
    failed = await sdk.threads.get(thread_id)
    assert MARK in failed["error"]["message"]
    streamed = [p async for p in sdk.runs.stream(None, "everywhere", input={"text": MARK}, on_completion="keep")]
    assert MARK in json.dumps([part.data for part in streamed])
    told = {"text": MARK, "fails": False}
    await sdk.runs.wait(thread_id, "everywhere", input=told, webhook="https://receiver.invalid/hook")
    await sdk.threads.update_state(thread_id, {"text": MARK})
    copy_id = (await sdk.threads.copy(thread_id))["thread_id"]
    assert (await sdk.threads.get(copy_id))["values"]["text"] == MARK
    assert (await sdk.threads.get_state(copy_id))["values"]["text"] == MARK
    later = await sdk.runs.create(
        thread_id, "everywhere", input={"text": MARK}, config={"tags": [MARK]}, after_seconds=3600
    )
    assert (await sdk.runs.get(thread_id, later["run_id"]))["kwargs"]["input"] == {"text": MARK}
    await sdk.store.put_item(["notes"], "own", {"text": MARK})
    assert (await sdk.store.get_item(["notes"], "own"))["value"] == {"text": MARK}
    cron = await sdk.crons.create("everywhere", schedule="0 0 1 1 *", input={"text": MARK}, metadata=metadata)
    assistant_id = await use_an_assistant(sdk)
    ids = {"thread_id": thread_id, "copy_id": copy_id, "run_id": later["run_id"], "assistant_id": assistant_id}
    return {**ids, "cron": cron}


async def use_an_assistant(sdk: Client) -> str:
    """Put the marker wherever an assistant can have it, in two versions, and let it run."""
    made = await sdk.assistants.create(
        "everywhere", context={"whisper": "v1 " + MARK}, config={"tags": [MARK]}, metadata={"secret": MARK}
    )
    assistant_id = made["assistant_id"]
    await sdk.assistants.update(assistant_id, context={"whisper": MARK})
    await assistant_is_read(sdk, assistant_id)
    await assistant_runs(sdk, assistant_id)
    return assistant_id


async def assistant_is_read(sdk: Client, assistant_id: str) -> None:
    """An assistant of `use_an_assistant` shows what it was made of, in every way to ask."""
    config = {"tags": [MARK], "configurable": {"whisper": MARK}}
    search: Any = await sdk.assistants.search(limit=100)
    selected: Any = await sdk.assistants.search(limit=100, select=["context", "assistant_id"])
    listed = next(one for one in search if one["assistant_id"] == assistant_id)
    versions: Any = await sdk.assistants.get_versions(assistant_id)
    for shown in (await sdk.assistants.get(assistant_id), listed, versions[0]):
        assert (shown["config"], shown["context"], shown["metadata"]) == (config, {"whisper": MARK}, {"secret": MARK})
    assert versions[1]["config"] == {"tags": [MARK], "configurable": {"whisper": "v1 " + MARK}}
    assert versions[1]["context"] == {"whisper": "v1 " + MARK}
    assert {"assistant_id": assistant_id, "context": {"whisper": MARK}} in selected


async def assistant_runs(sdk: Client, assistant_id: str) -> None:
    """What an assistant is configured with reaches its graph, and what its thread and its run show."""
    thread_id = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(thread_id, assistant_id, input={"text": "hello"}, metadata={"public": "run"})
    last: Any = await sdk.store.get_item(["notes"], "last")
    assert last["value"] == {"text": "hello", "of": MARK}
    thread: Any = await sdk.threads.get(thread_id)
    assert (thread["config"]["tags"], thread["config"]["configurable"]["whisper"]) == ([MARK], MARK)
    [run] = await sdk.runs.list(thread_id)
    assert run["metadata"].items() >= {"secret": MARK, "public": "run"}.items()


def places_of(mark: str, kept: dict[str, bytes]) -> list[str]:
    return [name for name, content in kept.items() if mark.encode() in content]
