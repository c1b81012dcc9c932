"""Threads whose time is over, as upkeep sweeps them; and the TTL that a project gives to all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from api_services import BASIC
from integration.thread_world import World, world
from waystation.runs.prune import sweep_threads

pytestmark = pytest.mark.anyio


async def expire(w: World) -> None:
    async with w.services.db.connection() as conn:
        await conn.execute("update thread set expires_at = now() - interval '1 s' where ttl_minutes is not null")


async def sweep(w: World) -> int:
    return await w.services.graphs.call(lambda side: sweep_threads(side, limit=100))


async def test_swept_threads_go_or_keep_their_latest_checkpoint(database_uri: str) -> None:
    async with world(database_uri) as w:
        metadata = {"graph_id": "steps"}
        gone = await w.ran("steps", {"n": 0}, await w.thread(metadata=metadata, ttl={"ttl": 5}))
        ttl = {"ttl": 5, "strategy": "keep_latest"}
        kept = await w.ran("steps", {"n": 0}, await w.thread(metadata=metadata, ttl=ttl))
        stays = await w.ran("steps", {"n": 0})
        assert await sweep(w) == 0
        await expire(w)
        assert await sweep(w) == 2
        assert await sweep(w) == 0
        await w.ask("GET", f"/threads/{gone}", status=404)
        assert len(await w.ask("GET", f"/threads/{kept}/history?limit=9")) == 1
        assert (await w.ask("GET", f"/threads/{kept}/state"))["values"] == {"log": ["a", "b"], "n": 2}
        assert len(await w.ask("GET", f"/threads/{stays}/history?limit=9")) == 4


async def test_threads_get_the_projects_ttl_unless_they_bring_their_own(database_uri: str, tmp_path: Path) -> None:
    shutil.copytree(BASIC, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "langgraph.json").read_text())
    config["checkpointer"] = {"ttl": {"strategy": "keep_latest", "default_ttl": 60}}
    config["graphs"] = {"steps": config["graphs"]["steps"]}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    async with world(database_uri, project=tmp_path) as w:
        plain, own = await w.thread(), await w.thread(ttl={"ttl": 5})
        shown = [(await w.ask("GET", f"/threads/{t}?include=ttl"))["ttl"] for t in (plain, own)]
    assert [(ttl["strategy"], ttl["ttl_minutes"]) for ttl in shown] == [("keep_latest", 60), ("delete", 5)]


async def test_a_thread_that_needs_its_past_is_kept_and_does_not_hold_up_the_sweep(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State kept as differences between checkpoints cannot be trimmed: the saver says so for the first thread."""
    async with world(database_uri) as w:
        ttl = {"ttl": 5, "strategy": "keep_latest"}
        first, second = [
            await w.ran("steps", {"n": 0}, await w.thread(metadata={"graph_id": "steps"}, ttl=ttl)) for _ in range(2)
        ]
        saver = w.services.graphs.side.saver
        prune = saver.aprune

        async def refusing(thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
            if first in thread_ids:
                raise NotImplementedError
            await prune(thread_ids, strategy=strategy)

        monkeypatch.setattr(saver, "aprune", refusing)
        await expire(w)
        assert await sweep(w) == 2
        assert await sweep(w) == 0
        assert len(await w.ask("GET", f"/threads/{first}/history?limit=9")) == 4
        assert len(await w.ask("GET", f"/threads/{second}/history?limit=9")) == 1
        refused = await w.ask("POST", "/threads/prune", {"thread_ids": [first], "strategy": "keep_latest"}, status=422)
        assert first in refused["detail"]
