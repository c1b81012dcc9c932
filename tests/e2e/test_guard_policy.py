"""A policy over graphs that nobody edited, through the official client: what is refused, written, and given back."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph_sdk import get_client

from eventually import eventually, run_becomes
from live_server import Client, live_server_on
from providers import FaultServer
from receivers import receiver
from waystation.config import Settings

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).parents[1] / "fixtures" / "projects" / "guarded"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
CENT = 10_000_000
"""Nano-dollars."""

Serve = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def serve(database_uri: str, tmp_path: Path) -> Serve:
    """Serve the graphs with a policy."""

    @asynccontextmanager
    async def serving(guards: dict[str, Any] | None = None, **settings: Any) -> AsyncGenerator[Client]:
        project = tmp_path / "project"
        shutil.copytree(PROJECT, project, dirs_exist_ok=True)
        keys = json.loads((project / "langgraph.json").read_text())
        keys["webhooks"] = {"url": {"disable_loopback": False}}
        keys["waystation"] = {} if guards is None else {"guards": {"prices": "prices.json", **guards}}
        (project / "langgraph.json").write_text(json.dumps(keys))
        given: dict[str, Any] = {"n_jobs_per_worker": 12} | settings
        with live_server_on(database_uri, project=project, settings=Settings(**given)) as server:
            async with get_client(url=server.url) as client:
                yield client

    return serving


def ledger(database_uri: str) -> list[tuple[str, int, dict[str, Any]]]:
    with psycopg.connect(database_uri) as conn:
        calls = "select kind, cost_nano_usd, detail from guard_ledger where kind <> 'correction' order by created_at"
        return conn.execute(calls).fetchall()


def accounts(database_uri: str) -> dict[str, tuple[int, int, int]]:
    with psycopg.connect(database_uri) as conn:
        found = conn.execute(
            "select scope, unit, sum(spent), sum(held), sum(at_risk) from guard_account where scope <> 'self-test' "
            "group by 1, 2"
        )
        return {f"{scope}/{unit}": (int(a), int(b), int(c)) for scope, unit, a, b, c in found}


async def test_fifty_runs_at_once_cannot_spend_more_than_the_budget(serve: Serve, database_uri: str) -> None:
    ten_calls = {"size": 0.0001, "scope": "tenant", "window": "day"}
    async with serve({"budgets": [ten_calls], "budget_wait_s": 20}) as sdk:
        outcomes = await asyncio.gather(*(sdk.runs.wait(None, "ask", input=HI, raise_error=False) for _ in range(50)))
        errors = [one["__error__"] for one in outcomes if "__error__" in one]
        assert len(outcomes) - len(errors) in (9, 10)
        assert {one["error"] for one in errors} == {"BudgetExceeded"}
        assert {one["code"] for one in errors} == {"budget_exceeded"}
        assert all(0 < one["retry_after"] <= 86_400 for one in errors)
    entries = ledger(database_uri)
    assert sum(cost for _, cost, _ in entries) == 10_000 * len(entries) <= 100_000
    assert accounts(database_uri) == {"tenant/usd": (10_000 * len(entries), 0, 0)}


async def test_a_fan_out_within_one_run_stays_within_its_limit(serve: Serve, database_uri: str) -> None:
    async with serve({"budgets": [{"size": 4, "unit": "model_calls"}]}) as sdk:
        fine = await sdk.runs.wait(None, "fan", input={"n": 4})
        assert len(fine["said"]) == 4
        outcome = await sdk.runs.wait(None, "fan", input={"n": 20}, raise_error=False)
        assert outcome["__error__"]["code"] == "budget_exceeded"
    assert len(ledger(database_uri)) <= 8
    assert [held for _, held, _ in accounts(database_uri).values()] == [0]


async def test_a_cancelled_run_leaves_nothing_held_and_its_tokens_in_the_ledger(
    serve: Serve, database_uri: str
) -> None:
    async with serve({"budgets": [{"size": 1, "scope": "tenant"}]}) as sdk:
        thread = (await sdk.threads.create())["thread_id"]
        run = await sdk.runs.create(thread, "hang", input=HI, stream_mode="messages")

        async def is_held() -> bool:
            return any(held for _, held, _ in accounts(database_uri).values())

        await eventually(is_held)
        await sdk.runs.cancel(thread, run["run_id"], wait=True)
        await run_becomes(sdk, run, "interrupted")
        ((spent, held, at_risk),) = accounts(database_uri).values()
        ((kind, cost, detail),) = ledger(database_uri)
        assert (held, at_risk) == (0, 0)
        assert spent == cost > 0
        assert (kind, detail["outcome"]) == ("model", "cancelled")


async def test_a_stream_tells_of_a_refusal_in_its_error_event(serve: Serve) -> None:
    async with serve({"budgets": [{"size": 0, "unit": "model_calls"}]}) as sdk:
        events = [(e.event, e.data) async for e in sdk.runs.stream(None, "ask", input=HI)]
        name, error = events[-1]
        assert name == "error"
        assert error["error"] == "BudgetExceeded"
        assert error["code"] == "budget_exceeded"
        assert "model calls" in error["message"]


async def test_tool_calls_of_a_prebuilt_node_are_counted_and_permitted(serve: Serve) -> None:
    tools = {"for": {"graph": "agent"}, "size": 2, "unit": "tool_calls"}
    async with serve({"budgets": [tools]}) as sdk:
        thread = (await sdk.threads.create())["thread_id"]
        outcome = await sdk.runs.wait(thread, "agent", input=HI, raise_error=False)
        assert outcome["__error__"]["code"] == "budget_exceeded"
        state = (await sdk.threads.get_state(thread))["values"]["messages"]
        assert [m["content"] for m in state if m["type"] == "tool"] == ["X", "X"]
    async with serve({"permissions": [{"default": "deny"}]}) as sdk:
        outcome = await sdk.runs.wait(None, "agent", input=HI, raise_error=False)
        assert outcome["__error__"]["code"] == "not_permitted"


async def test_an_entry_is_about_the_runs_that_its_selector_names(serve: Serve, database_uri: str) -> None:
    nothing = {"size": 0, "unit": "model_calls"}
    async with serve({"budgets": [{"for": {"graph": "f*"}, **nothing}]}) as sdk:
        assert (await sdk.runs.wait(None, "ask", input=HI))["messages"]
        outcome = await sdk.runs.wait(None, "fan", input={"n": 1}, raise_error=False)
        assert outcome["__error__"]["code"] == "budget_exceeded"
    assert ledger(database_uri) == []


async def test_ports_and_callbacks_are_neither_stored_nor_streamed(serve: Serve, database_uri: str) -> None:
    modes = ["values", "updates", "messages", "debug", "checkpoints", "tasks", "events", "custom"]
    async with serve({"budgets": [{"size": 1, "scope": "tenant"}]}) as sdk:
        thread = (await sdk.threads.create())["thread_id"]
        stream = sdk.runs.stream(thread, "ask", input=HI, stream_mode=modes, stream_subgraphs=True)
        seen = [str(event) async for event in stream]
        seen += [str(await sdk.threads.get_history(thread)), str(await sdk.threads.get(thread))]
        seen += [str(await sdk.runs.list(thread))]
    assert len(seen) > 8
    with psycopg.connect(database_uri) as conn:
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "run", "thread"):
            seen += [str(row) for row in conn.execute(f"select t::text from {table} t".encode()).fetchall()]
    for text in seen:
        assert "waystation_guards" not in text
        assert "PostgresLedger" not in text


async def test_a_run_without_a_policy_is_as_before(serve: Serve, database_uri: str) -> None:
    async with serve(None) as sdk:
        assert (await sdk.runs.wait(None, "ask", input=HI))["messages"][-1]["content"] == "paid answers"
    assert ledger(database_uri) == []


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[FaultServer]:
    """A provider that answers, and whose key is in the environment."""
    monkeypatch.setenv("FAULT_SERVER_KEY", "k")
    with FaultServer() as server:
        yield server


def spec(server: FaultServer, name: str) -> dict[str, Any]:
    return {"model": f"openai:{name}", "base_url": server.openai, "api_key_env": "FAULT_SERVER_KEY"}


FAIL: dict[str, Any] = {"messages": [{"role": "user", "content": "fail"}]}


async def test_a_limit_that_ends_lets_the_agent_say_so_and_the_run_succeed(serve: Serve) -> None:
    async with serve({"budgets": [{"size": 2, "unit": "tool_calls", "on_limit": "end"}]}) as sdk:
        thread = (await sdk.threads.create())["thread_id"]
        run = await sdk.runs.create(thread, "agent", input=HI)
        await run_becomes(sdk, run, "success")
        messages = (await sdk.threads.get_state(thread))["values"]["messages"]
        assert "tool calls" in messages[-1]["content"]
        assert messages[-1]["response_metadata"]["guard"]["code"] == "budget_exceeded"
        asked = {call["id"] for message in messages for call in message.get("tool_calls") or ()}
        assert asked == {message["tool_call_id"] for message in messages if message["type"] == "tool"}
        assert (await sdk.threads.get(thread))["status"] == "idle"


async def test_a_limit_that_interrupts_asks_for_more_and_goes_on(serve: Serve, database_uri: str) -> None:
    async with serve(
        {"budgets": [{"size": 1, "unit": "model_calls", "scope": "user", "on_limit": "interrupt"}]}
    ) as sdk:
        thread = (await sdk.threads.create())["thread_id"]
        await sdk.runs.wait(thread, "ask", input=HI)
        asked = await sdk.runs.wait(thread, "ask", input=HI)
        assert asked["__interrupt__"][0]["value"]["type"] == "waystation.budget"
        done = await sdk.runs.wait(thread, "ask", command={"resume": {"grant": 3}})
        assert done["messages"][-1]["content"] == "paid answers"
    assert [kind for kind, *_ in ledger(database_uri)].count("model") == 2


async def test_another_model_answers_where_the_graphs_own_fails(serve: Serve, provider: FaultServer) -> None:
    failover = {"models": {"paid": [spec(provider, "gpt-4o-mini")]}, "policy": {"breaker": None}}
    async with serve({"failover": [failover]}) as sdk:
        own = await sdk.runs.wait(None, "ask", input=HI)
        assert own["messages"][-1]["content"] == "paid answers"
        other = (await sdk.runs.wait(None, "ask", input=FAIL))["messages"][-1]
        assert other["response_metadata"]["failover"]["target"] == "openai/gpt-4o-mini"
        streamed = [e.data async for e in sdk.runs.stream(None, "ask", input=FAIL, stream_mode="messages-tuple")]
        assert any(other["content"].split()[0] in str(data) for data in streamed)
    async with serve({}) as sdk:
        outcome = await sdk.runs.wait(None, "ask", input=FAIL, raise_error=False)
        assert outcome["__error__"]["error"] == "ConnectionError"


async def test_an_answer_of_the_cache_is_no_call_and_is_the_tenants_own(serve: Serve, database_uri: str) -> None:
    async with serve({"cache": [{"ttl_s": 60}], "budgets": [{"size": 1, "scope": "tenant"}]}) as sdk:
        for _ in range(3):
            assert (await sdk.runs.wait(None, "ask", input=HI))["messages"][-1]["content"] == "paid answers"
    assert sorted(kind for kind, *_ in ledger(database_uri)) == ["cache_hit", "cache_hit", "model"]


async def test_a_budget_degrades_to_the_cheaper_model(serve: Serve, provider: FaultServer) -> None:
    guards = {
        "budgets": [{"size": 0.002, "scope": "tenant", "on_limit": "degrade", "degrade_at": 0.0075}],
        "cheaper": [{"models": {"paid": spec(provider, "cheap")}}],
        "budget_wait_s": 0,
    }
    async with serve(guards) as sdk:
        first = (await sdk.runs.wait(None, "ask", input=HI))["messages"][-1]
        second = (await sdk.runs.wait(None, "ask", input=HI))["messages"][-1]
    assert first["content"] == "paid answers"
    assert second["content"] != "paid answers"
    assert [seen.model for seen in provider.requests] == ["cheap"]


async def test_an_alert_goes_to_the_webhook_once(serve: Serve) -> None:
    async with receiver() as hook:
        guards = {
            "budgets": [{"size": 0.00002, "scope": "tenant", "alerts": [0.5]}],
            "alerts": {"webhook": hook.url},
        }
        async with serve(guards, webhook_retry_s=0.2) as sdk:
            for _ in range(2):
                await sdk.runs.wait(None, "ask", input=HI)
            (told,) = await hook.until(1)
    assert told.body["type"] == "budget_alert"
    assert (told.body["part"], told.body["scope"], told.body["limit"]) == (0.5, "tenant", 0.00002)


async def test_caps_hold_for_calls_steps_and_prompts(serve: Serve) -> None:
    async with serve({"caps": [{"for": {"graph": "agent"}, "tool_calls": 2}, {"input_chars": 1000}]}) as sdk:
        outcome = await sdk.runs.wait(None, "agent", input=HI, raise_error=False)
        assert outcome["__error__"]["code"] == "limit_passed"
        long = {"messages": [{"role": "user", "content": "x" * 2000}]}
        assert (await sdk.runs.wait(None, "ask", input=long, raise_error=False))["__error__"]["code"] == "limit_passed"
    async with serve({"caps": [{"steps": 4}]}) as sdk:
        outcome = await sdk.runs.wait(None, "agent", input=HI, raise_error=False)
        assert outcome["__error__"]["error"] == "GraphRecursionError"
