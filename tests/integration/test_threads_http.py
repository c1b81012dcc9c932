"""The operations on threads, as the contract's transcripts show them."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from integration.thread_world import World, world

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-0000-0000-000000000000"

BAD_BODIES: list[tuple[str, Any, str]] = [
    ("/threads", {"thread_id": "abc"}, "Invalid thread ID: must be a UUID"),
    ("/threads", {"thread_id": None}, "thread_id"),
    ("/threads", {"metadata": None}, "metadata"),
    ("/threads", {"metadata": [1]}, "metadata"),
    ("/threads", {"ttl": 5}, "ttl"),
    ("/threads", {"ttl": {"ttl": 5, "strategy": "burn"}}, "strategy"),
    ("/threads", {"ttl": {"ttl": 0}}, "ttl.ttl"),
    ("/threads", {"ttl": {"ttl": 1e300}}, "ttl.ttl"),
    ("/threads", {"if_exists": "burn"}, "if_exists"),
    ("/threads", {"supersteps": [{"updates": []}]}, "updates"),
    ("/threads/search", {"status": "dead"}, "status"),
    ("/threads/search", {"limit": 0}, "limit"),
    ("/threads/search", {"limit": 1001}, "limit"),
    ("/threads/search", {"limit": "5"}, "limit"),
    ("/threads/search", {"limit": 10**30}, "limit"),
    ("/threads/search", {"offset": -1}, "offset"),
    ("/threads/search", {"offset": 2**62}, "offset"),
    ("/threads/search", {"sort_by": "metadata; drop table thread"}, "sort_by"),
    ("/threads/search", {"sort_order": "up"}, "sort_order"),
    ("/threads/search", {"select": ["secret"]}, "select"),
    ("/threads/search", {"ids": ["abc"]}, "ids"),
    ("/threads/search", {"metadata": "x"}, "metadata"),
    ("/threads/search", {"extract": {"x": "secret.y"}}, "must start with one of: config, interrupts, metadata"),
    ("/threads/search", {"extract": {"x": "values[x]"}}, "malformed at character 7"),
    ("/threads/search", {"extract": {f"k{n}": "values.n" for n in range(11)}}, "extract"),
    ("/threads/count", {"values": 5}, "values"),
    ("/threads/prune", {}, "thread_ids"),
    ("/threads/prune", {"thread_ids": ["abc"]}, "thread_ids"),
    ("/threads/prune", {"thread_ids": [], "strategy": "x"}, "strategy"),
    (f"/threads/{UNKNOWN}/state/checkpoint", {}, "checkpoint"),
    (f"/threads/{UNKNOWN}/state", {"values": "nonsense"}, "values"),
    (f"/threads/{UNKNOWN}/history", {"limit": 0}, "limit"),
    (f"/threads/{UNKNOWN}/history", {"before": 5}, "before"),
]


@pytest.fixture
async def w(database_uri: str) -> AsyncGenerator[World]:
    async with world(database_uri) as made:
        yield made


async def test_create_and_get(w: World) -> None:
    made = await w.ask("POST", "/threads", {})
    assert uuid.UUID(made["thread_id"]).version == 7
    assert (made["status"], made["metadata"], made["values"]) == ("idle", {}, None)
    assert await w.ask("GET", f"/threads/{made['thread_id']}") == made
    assert await w.ask("GET", f"/threads/{made['thread_id']}?include=colour") == made


async def test_create_with_a_taken_id(w: World) -> None:
    own = str(uuid.uuid4())
    made = await w.ask("POST", "/threads", {"thread_id": own, "metadata": {"n": 1, "assistant_id": "x"}})
    assert made["metadata"] == {"n": 1}
    refused = await w.ask("POST", "/threads", {"thread_id": own.upper()}, status=409)
    assert refused["detail"] == f"Thread with ID {own} already exists"
    kept = await w.ask("POST", "/threads", {"thread_id": own, "if_exists": "do_nothing", "metadata": {"x": 1}})
    assert kept == made


async def test_ttl(w: World) -> None:
    thread_id = await w.thread(ttl={"ttl": 5})
    with_ttl = await w.ask("GET", f"/threads/{thread_id}?include=ttl")
    assert (with_ttl["ttl"]["strategy"], with_ttl["ttl"]["ttl_minutes"]) == ("delete", 5)
    await w.ask("PATCH", f"/threads/{thread_id}", {"ttl": {"ttl": 60, "strategy": "keep_latest"}})
    found = await w.ask("POST", "/threads/search?include=ttl", {"select": ["thread_id"]})
    assert found[0]["ttl"]["strategy"] == "keep_latest"


async def test_patch(w: World) -> None:
    thread_id = await w.thread(metadata={"tag": "a", "n": 1})
    await w.make_busy(thread_id)
    patched = await w.ask("PATCH", f"/threads/{thread_id}", {"metadata": {"n": 2, "more": [1]}})
    assert patched["metadata"] == {"tag": "a", "n": 2, "more": [1]}
    assert patched["status"] == "busy"
    assert (await w.ask("PATCH", f"/threads/{UNKNOWN}", {"metadata": {}}, status=404))["detail"] == "Not Found"


async def test_search_pages(w: World) -> None:
    made = [await w.thread(metadata={"tag": "x"}) for _ in range(3)]
    await w.thread()
    body: dict[str, Any] = {"metadata": {"tag": "x"}, "limit": 2, "select": ["thread_id"]}
    first = await w.http.post("/threads/search", json=body)
    assert first.json() == [{"thread_id": made[2]}, {"thread_id": made[1]}]
    assert (first.headers["x-pagination-total"], first.headers["x-pagination-next"]) == ("3", "2")
    last = await w.http.post("/threads/search", json=body | {"offset": 2})
    assert last.json() == [{"thread_id": made[0]}]
    assert last.headers["x-pagination-total"] == "3"
    assert "x-pagination-next" not in last.headers
    beyond = await w.http.post("/threads/search", json=body | {"offset": 50})
    assert (beyond.json(), beyond.headers["x-pagination-total"]) == ([], "50")
    assert await w.ask("POST", "/threads/count", {"metadata": {"tag": "x"}}) == 3


async def test_search_by_values_with_extract(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    await w.ask("POST", f"/threads/{thread_id}/state", {"values": None})
    found = await w.ask(
        "POST",
        "/threads/search",
        {
            "values": {"n": 2},
            "extract": {"first": "values.log[0]", "last": "values.log[-1]", "none": "values.nope"},
            "select": ["thread_id"],
        },
    )
    extracted = {"first": "a", "last": "b", "none": None}
    assert found == [{"thread_id": thread_id, "extracted": extracted}]


@pytest.mark.parametrize(("path", "body", "says"), BAD_BODIES)
async def test_bad_bodies_name_the_field(w: World, path: str, body: Any, says: str) -> None:
    assert says in (await w.ask("POST", path, body, status=422))["detail"]


@pytest.mark.parametrize("extreme", ["\x00", "é\U0001f600", "x" * 100_000, "'; drop table thread; --"])
async def test_any_string_can_be_kept_and_found(w: World, extreme: str) -> None:
    thread_id = await w.thread(metadata={extreme: [extreme]})
    shown = extreme.replace("\x00", "\ufffd")
    for body in ({"metadata": {extreme: [extreme]}}, {"ids": [thread_id]}):
        (found,) = await w.ask("POST", "/threads/search", body)
        assert found["metadata"] == {shown: [shown]}


async def test_huge_numbers_and_deep_json_are_kept_or_refused(w: World) -> None:
    for value in (10**400, 1e308, -(10**30), 2**64):
        answer = await w.http.post("/threads", content=json.dumps({"metadata": {"n": value}}).encode())
        assert answer.status_code in (200, 422), answer.text
    deep: Any = 1
    for _ in range(190):
        deep = {"a": deep}
    await w.thread(metadata={"deep": deep})
    assert len(await w.ask("POST", "/threads/search", {"limit": 100})) >= 1


async def test_copy(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    copied = await w.ask("POST", f"/threads/{thread_id}/copy")
    assert "values" not in copied
    assert copied["metadata"] == {"graph_id": "steps"}
    state = await w.ask("GET", f"/threads/{copied['thread_id']}/state")
    assert state["values"] == {"log": ["a", "b"], "n": 2}
    assert state["checkpoint"]["thread_id"] == copied["thread_id"]
    assert (await w.ask("POST", f"/threads/{UNKNOWN}/copy", status=409))["detail"] == "Conflict"


async def test_storage(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    used = await w.ask("GET", f"/threads/{thread_id}/storage")
    assert used["thread_id"] == thread_id
    assert used["checkpoints"]["count"] == 4
    assert used["channel_values"]["by_channel"]["log"]["versions"] >= 2
    assert used["total_bytes"] > 0
    await w.ask("GET", f"/threads/{UNKNOWN}/storage", status=404)


async def test_prune(w: World) -> None:
    gone, kept = await w.ran("steps", {"n": 0}), await w.ran("steps", {"n": 0})
    assert await w.ask("POST", "/threads/prune", {"thread_ids": [gone, gone, UNKNOWN]}) == {"pruned_count": 1}
    await w.ask("GET", f"/threads/{gone}", status=404)
    keep = {"thread_ids": [kept, UNKNOWN], "strategy": "keep_latest"}
    assert await w.ask("POST", "/threads/prune", keep) == {"pruned_count": 1}
    history = await w.ask("GET", f"/threads/{kept}/history?limit=10")
    assert [state["values"] for state in history] == [{"log": ["a", "b"], "n": 2}]
    assert await w.ask("POST", "/threads/prune", {"thread_ids": []}) == {"pruned_count": 0}


async def test_keep_latest_passes_over_a_busy_thread(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    await w.make_busy(thread_id)
    keep = {"thread_ids": [thread_id], "strategy": "keep_latest"}
    assert await w.ask("POST", "/threads/prune", keep) == {"pruned_count": 0}
    assert len(await w.ask("GET", f"/threads/{thread_id}/history?limit=10")) == 4


async def test_delete_stops_the_runs_of_a_busy_thread(w: World) -> None:
    thread_id = await w.ran("steps", {"n": 0})
    run_id = await w.make_busy(thread_id)
    assert (await w.bare("DELETE", f"/threads/{thread_id}")).status_code == 204
    assert [key.run_id for key in w.worker.stopped] == [run_id]
    again = await w.ask("DELETE", f"/threads/{thread_id}", status=404)
    assert again["detail"] == f"Thread with ID {thread_id} not found"
    async with w.services.db.connection() as conn:
        cur = await conn.execute("select count(*) from checkpoints")
        assert await cur.fetchone() == (0,)


@pytest.mark.parametrize("path", ["", "/state", "/history", "/storage", f"/state/{UNKNOWN}"])
async def test_ids_must_be_uuids_and_known(w: World, path: str) -> None:
    bad = await w.ask("GET", f"/threads/abc{path}", status=422)
    assert bad["detail"] == "Invalid thread ID: must be a UUID"
    unknown = await w.ask("GET", f"/threads/{UNKNOWN}{path}", status=404)
    assert unknown["detail"] == f"Thread with ID {UNKNOWN} not found"
