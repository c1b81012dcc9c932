"""Leases as the worker's metrics tell of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from live_server import live_server_on
from waystation.config import Settings
from waystation.events.routed import RoutedLog
from waystation_db import runs

pytestmark = pytest.mark.anyio


async def test_a_run_that_has_just_ended_has_not_lost_its_lease(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is committed and its stream not yet ended, when its lease comes to be renewed."""
    committed, renewed = threading.Event(), threading.Event()
    renew, end = runs.renew_leases, RoutedLog.end

    def watched_renew(*given: Any, **named: Any) -> Any:
        was_committed = committed.is_set()
        answer = renew(*given, **named)
        if was_committed and answer.lost:
            renewed.set()
        return answer

    async def slow_end(*given: Any, **named: Any) -> None:
        committed.set()
        assert await asyncio.to_thread(renewed.wait, 60), "the lease was not renewed meanwhile"
        await asyncio.sleep(0)  # what the renewal told this loop comes first
        await end(*given, **named)

    monkeypatch.setattr(runs, "renew_leases", watched_renew)
    monkeypatch.setattr(RoutedLog, "end", slow_end)
    before = REGISTRY.get_sample_value("waystation_leases_lost_total")
    with live_server_on(database_uri, settings=Settings(lease_s=60, renew_s=0.2)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            answer = await http.post("/runs/wait", json={"assistant_id": "agent", "input": {}})
            assert answer.status_code == 200, answer.text
    assert REGISTRY.get_sample_value("waystation_leases_lost_total") == before
