"""What operators see of the guards and may change: standings, grants, the ledger; each tenant its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.authorized import http_as, new_key
from e2e.test_guard_policy import HI, PROJECT
from live_server import live_server_on
from waystation.config import Settings

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"assistant_id": "ask", "input": HI}
DAY = {"size": 0.00002, "scope": "tenant", "window": "day", "timezone": "Europe/Berlin"}


@asynccontextmanager
async def world(
    database_uri: str, folder: Path, guards: dict[str, Any], *callers: tuple[str, Any, str]
) -> AsyncGenerator[list[httpx.AsyncClient]]:
    """A server with a policy, and a client for each (identity, role, tenant)."""
    project = folder / "project"
    shutil.copytree(PROJECT, project, dirs_exist_ok=True)
    keys = json.loads((project / "langgraph.json").read_text())
    keys["waystation"] = {"guards": {"prices": "prices.json", **guards}}
    (project / "langgraph.json").write_text(json.dumps(keys))
    settings = Settings(auth={"api_keys": True}) if callers else Settings()
    with live_server_on(database_uri, project=project, settings=settings) as server:
        async with AsyncExitStack() as stack:
            texts = [await new_key(database_uri, name, role, tenant=tenant) for name, role, tenant in callers]
            clients = [http_as(server.url, text) for text in texts] or [http_as(server.url, None)]
            yield [await stack.enter_async_context(client) for client in clients]


async def test_a_limit_stands_as_it_was_spent_and_a_grant_lets_runs_go_on(database_uri: str, tmp_path: Path) -> None:
    async with world(database_uri, tmp_path, {"budgets": [DAY], "budget_wait_s": 0}) as (http,):
        assert (await http.get("/guards/budgets")).json() == []
        answers = [(await http.post("/runs/wait", json=ASK)).json() for _ in range(3)]
        assert [("__error__" in one) for one in answers] == [False, False, True]
        (stands,) = (await http.get("/guards/budgets")).json()
        assert (stands["scope"], stands["owner"], stands["unit"]) == ("tenant", "default", "usd")
        assert (stands["limit"], stands["spent"], stands["held"], stands["left"]) == (0.00002, 0.00002, 0.0, 0.0)
        assert stands["resets_at"].endswith(("22:00:00+00:00", "23:00:00+00:00"))
        wish = {"scope": "tenant", "owner": "default", "amount": 0.00001, "reason": "a good day"}
        granted = await http.post("/guards/grants", json=wish)
        assert granted.status_code == 200, granted.text
        assert granted.json()["left"] == pytest.approx(0.00001)
        assert "__error__" not in (await http.post("/runs/wait", json=ASK)).json()
        kinds = [entry["kind"] for entry in (await http.get("/guards/ledger")).json()["entries"]]
        assert kinds == ["model", "correction", "model", "model"]


async def test_the_ledger_is_chosen_from_paged_and_summed(database_uri: str, tmp_path: Path) -> None:
    async with world(database_uri, tmp_path, {"budgets": [{"size": 1, "scope": "tenant"}]}) as (http,):
        thread = (await http.post("/threads", json={})).json()["thread_id"]
        await http.post(f"/threads/{thread}/runs/wait", json=ASK)
        await http.post("/runs/wait", json={"assistant_id": "fan", "input": {"n": 3}})
        page = await http.get("/guards/ledger", params={"limit": 2})
        assert len(page.json()["entries"]) == 2
        assert page.headers["x-pagination-next"] == "2"
        assert page.json()["totals"]["cost_nano_usd"] == 40_000
        assert page.json()["totals"]["by_model"] == [
            {
                "kind": "model",
                "model": "paid",
                "calls": 4,
                "cost_nano_usd": 40_000,
                "input_tokens": 20,
                "output_tokens": 20,
                "unpriced": 0,
            }
        ]
        of_thread = (await http.get("/guards/ledger", params={"thread_id": thread})).json()
        assert [(one["node"], one["graph_id"], one["attempt"]) for one in of_thread["entries"]] == [
            ("answer", "ask", 1)
        ]
        none = (await http.get("/guards/ledger", params={"until": "2020-01-01T00:00:00Z"})).json()
        assert none == {"entries": [], "totals": {"cost_nano_usd": 0, "cost_usd": 0.0, "by_model": []}}


async def test_a_tenants_figures_are_its_own_and_a_users_only_theirs(database_uri: str, tmp_path: Path) -> None:
    budgets = [{"size": 1, "scope": "user", "window": "month"}, {"size": 5, "scope": "tenant"}]
    callers = [("ann", "admin", "acme"), ("sue", "user", "acme"), ("bob", "admin", "rival")]
    async with world(database_uri, tmp_path, {"budgets": budgets}, *callers) as (ann, sue, bob):
        for http in (ann, sue, sue):
            assert (await http.post("/runs/wait", json=ASK)).status_code == 200
        seen = (await ann.get("/guards/budgets")).json()
        assert {(one["scope"], one["owner"], one["spent"]) for one in seen} == {
            ("tenant", "acme", 0.00003),
            ("user", "ann", 0.00001),
            ("user", "sue", 0.00002),
        }
        assert [one["owner"] for one in (await sue.get("/guards/budgets?scope=tenant")).json()] == ["sue"]
        assert len((await ann.get("/guards/ledger")).json()["entries"]) == 3
        assert len((await sue.get("/guards/ledger?user=ann")).json()["entries"]) == 2
        assert (await bob.get("/guards/budgets")).json() == []
        assert (await bob.get("/guards/ledger")).json()["entries"] == []
        wish = {"scope": "user", "owner": "sue", "amount": 1}
        assert (await sue.post("/guards/grants", json=wish)).status_code == 403
        assert (await bob.post("/guards/grants", json={**wish, "scope": "tenant", "owner": "acme"})).status_code == 400
        assert (await ann.post("/guards/grants", json={**wish, "unit": "tokens"})).status_code == 404
        assert (await ann.post("/guards/grants", json=wish)).json()["left"] == pytest.approx(1.99998)


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/guards/ledger?since=yesterday", None, "since"),
        ("GET", "/guards/ledger?kind=gift", None, "kind"),
        ("GET", "/guards/budgets?scope=galaxy", None, "scope"),
        ("POST", "/guards/grants", {"scope": "user", "owner": "x", "amount": 0}, "body.amount"),
        ("POST", "/guards/grants", {"scope": "user", "amount": 1}, "body.owner"),
    ],
)
async def test_a_wrong_question_names_its_member(
    http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None, said: str
) -> None:
    answer = await http.request(method, path, json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


async def test_a_project_without_a_policy_has_no_figures(http: httpx.AsyncClient) -> None:
    assert (await http.get("/guards/budgets")).json() == []
    wish = {"scope": "user", "owner": "x", "amount": 1}
    assert (await http.post("/guards/grants", json=wish)).status_code == 404
