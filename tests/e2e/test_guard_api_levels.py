"""Levels, breakers and forecasts over HTTP: what operators see and set, and what it does to runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.test_guard_api import ASK, world
from e2e.test_guard_policy import FAIL, spec
from eventually import eventually
from providers import FaultServer

pytestmark = pytest.mark.anyio

QUICK: dict[str, Any] = {"hold_s": 60, "check_s": 0.01}


async def test_maintenance_refuses_calls_until_it_is_lifted(database_uri: str, tmp_path: Path) -> None:
    async with world(database_uri, tmp_path, {"levels": QUICK}) as (http,):
        assert (await http.get("/guards/level")).json()["level"] == "full"
        wish = {"level": "maintenance", "reason": "a new database", "for_s": 600}
        made = await http.put("/guards/level", json=wish)
        assert made.status_code == 200, made.text
        assert (made.json()["source"], made.json()["reason"], bool(made.json()["until"])) == (
            "operator",
            "a new database",
            True,
        )
        outcome = (await http.post("/runs/wait", json=ASK)).json()
        assert outcome["__error__"]["code"] == "maintenance"
        assert (await http.delete("/guards/level")).json()["level"] == "full"

        async def works() -> bool:
            return "__error__" not in (await http.post("/runs/wait", json=ASK)).json()

        await eventually(works)


async def test_at_a_reduced_level_the_cheaper_model_answers_and_metadata_says_so(
    database_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT_SERVER_KEY", "k")
    with FaultServer() as provider:
        guards = {"levels": QUICK, "cheaper": [{"models": {"paid": spec(provider, "cheap")}}]}
        async with world(database_uri, tmp_path, guards) as (http,):
            await http.put("/guards/level", json={"level": "reduced"})
            thread = (await http.post("/threads", json={})).json()["thread_id"]
            said = (await http.post(f"/threads/{thread}/runs/wait", json=ASK)).json()
            assert said["messages"][-1]["content"] != "paid answers"
            state = (await http.get(f"/threads/{thread}/state")).json()
            assert state["metadata"]["waystation_level"] == "reduced"
        assert [seen.model for seen in provider.requests] == ["cheap"]


async def test_levels_of_all_tenants_are_set_by_the_default_tenants_admins_alone(
    database_uri: str, tmp_path: Path
) -> None:
    callers = [("ann", "admin", "acme"), ("root", "admin", "default"), ("sue", "reader", "default")]
    wish = {"level": "reduced"}
    async with world(database_uri, tmp_path, {"levels": QUICK}, *callers) as (ann, root, sue):
        assert [(await one.put("/guards/level", json=wish)).status_code for one in (ann, root, sue)] == [403, 200, 403]
    async with world(database_uri, tmp_path, {"levels": {**QUICK, "name": "of {tenant}"}}, *callers) as (ann, root, _):
        assert (await ann.put("/guards/level", json=wish)).json()["name"] == "of acme"
        assert (await root.get("/guards/level")).json()["level"] == "full"


async def test_an_open_breaker_is_listed_with_its_cause(
    database_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT_SERVER_KEY", "k")
    with FaultServer() as provider:
        provider.always("server_error")
        breaker = {"minimum": 1, "failure_rate": 0.1, "cooldown_s": 600}
        once = {kind: {"retries": 0, "last_retries": 0} for kind in ("overload", "connection", "unknown")}
        failover = {
            "models": {"paid": [spec(provider, "gpt-4o-mini")]},
            "policy": {"breaker": breaker, "decisions": once},
        }
        async with world(database_uri, tmp_path, {"failover": [failover]}) as (http,):
            before = (await http.get("/guards/breakers")).json()
            assert [(one["target"], one["is_open"]) for one in before] == [("openai/gpt-4o-mini", False)]
            outcome = (await http.post("/runs/wait", json={**ASK, "input": FAIL})).json()
            assert outcome["__error__"]["code"] == "all_targets_failed"
            after = {one["target"]: one for one in (await http.get("/guards/breakers")).json()}
            assert after["openai/gpt-4o-mini"]["is_open"] is True
            assert after["openai/gpt-4o-mini"]["cause"]
            assert 0 < after["openai/gpt-4o-mini"]["at_most_s"] <= 700


async def test_a_run_is_priced_from_past_runs_and_held_against_the_limits(database_uri: str, tmp_path: Path) -> None:
    guards = {"budgets": [{"size": 0.000045, "scope": "tenant"}], "budget_wait_s": 0}
    async with world(database_uri, tmp_path, guards) as (http,):
        wish = {"assistant_id": "ask", "input": ASK["input"]}
        first = (await http.post("/guards/estimate", json=wish)).json()
        assert (first["confidence"], first["runs"], first["fits"]) == ("none", 0, True)
        for _ in range(3):
            await http.post("/runs/wait", json={**ASK, "on_completion": "keep"})
        found = (await http.post("/guards/estimate", json=wish)).json()
        assert (found["graph_id"], found["runs"], found["confidence"]) == ("ask", 3, "low")
        assert found["expected"]["usd"] == pytest.approx(0.00001)
        assert found["expected"]["model_calls"] == 1
        (limit,) = found["limits"]
        assert limit["left"] == pytest.approx(0.000015)
        assert limit["fits"] is found["fits"] is True
        long = {"messages": [{"role": "user", "content": "word " * 4000}]}
        longer = (await http.post("/guards/estimate", json={**wish, "input": long})).json()
        assert longer["expected"]["usd"] > 0.001
        assert longer["fits"] is False


async def test_without_a_policy_there_is_no_level_and_estimates_name_what_is_wrong(http: httpx.AsyncClient) -> None:
    assert (await http.get("/guards/level")).status_code == 404
    assert (await http.put("/guards/level", json={"level": "maintenance"})).status_code == 404
    assert (await http.put("/guards/level", json={"level": "lower"})).status_code == 422
    assert (await http.get("/guards/breakers")).json() == []
    assert (await http.post("/guards/estimate", json={"assistant_id": "steps", "input": {"n": 1}})).status_code == 200
    assert (await http.post("/guards/estimate", json={"assistant_id": "nothing"})).status_code == 422
    missing = {"assistant_id": "5b1f6f0e-6a53-4b0a-9d3e-0f6a3c9a1c55"}
    assert (await http.post("/guards/estimate", json=missing)).status_code == 404
    gone = {"assistant_id": "steps", "thread_id": missing["assistant_id"]}
    assert (await http.post("/guards/estimate", json=gone)).status_code == 404
