"""Budgets and breakers of a policy as gauges, and what guards refuse as calls that were refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.test_guard_api import ASK, DAY, world
from e2e.test_guard_policy import FAIL, spec
from providers import FaultServer

pytestmark = pytest.mark.anyio


async def shown(http: httpx.AsyncClient, name: str, **labels: str) -> float | None:
    text = (await http.get("/metrics")).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    return next((s.value for s in samples if s.labels.items() >= labels.items()), None)


async def test_budgets_show_what_is_spent_of_them(database_uri: str, tmp_path: Path) -> None:
    async with world(database_uri, tmp_path, {"budgets": [DAY], "budget_wait_s": 0}) as (http,):
        refused = await shown(http, "waystation_model_calls_total", model="paid", outcome="refused") or 0
        answers = [(await http.post("/runs/wait", json=ASK)).json() for _ in range(3)]
        assert [("__error__" in one) for one in answers] == [False, False, True]
        assert await shown(http, "waystation_model_calls_total", model="paid", outcome="refused") == refused + 1
    async with world(database_uri, tmp_path, {"budgets": [DAY], "budget_wait_s": 0}) as (http,):
        day = {"tenant": "default", "scope": "tenant", "unit": "usd", "window": "day"}
        assert await shown(http, "waystation_guard_budget_spent", **day) == pytest.approx(0.00002)
        assert await shown(http, "waystation_guard_budget_held", **day) == 0
        assert await shown(http, "waystation_guard_budget_used_most_ratio", **day) == pytest.approx(1)


async def test_open_breakers_are_shown_and_leave_the_server_ready(
    database_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT_SERVER_KEY", "k")
    with FaultServer() as provider:
        provider.always("server_error")
        breaker = {"minimum": 1, "failure_rate": 0.1, "cooldown_s": 600}
        once = {kind: {"retries": 0, "last_retries": 0} for kind in ("overload", "connection", "unknown")}
        policy: dict[str, Any] = {"breaker": breaker, "decisions": once}
        guards = {"failover": [{"models": {"paid": [spec(provider, "gpt-4o-mini")]}, "policy": policy}]}
        async with world(database_uri, tmp_path, guards) as (http,):
            assert (await http.get("/ready")).json()["models"] == {"openai/gpt-4o-mini": "up"}
            await http.post("/runs/wait", json={**ASK, "input": FAIL})
            ready = await http.get("/ready")
            assert ready.status_code == 200
            assert ready.json()["models"]["openai/gpt-4o-mini"] == "down"
            assert await shown(http, "waystation_guard_breaker_open", target="openai/gpt-4o-mini") == 1
