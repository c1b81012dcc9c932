"""A policy that keeps tools' results, finds answers by meaning, and answers without a model: through the official
client, for graphs that nobody edited."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from e2e.authorized import new_key
from e2e.test_guard_metrics import shown
from e2e.test_guard_policy import PROJECT, ledger
from eventually import eventually
from live_server import Client, live_server_on
from waystation.catalog.project import read_project
from waystation.config import Settings
from waystation.errors import ConfigError

pytestmark = pytest.mark.anyio

LIMIT: dict[str, Any] = {"size": 1, "scope": "tenant", "window": "day"}
"""Enough for all; so calls are in the ledger."""
INDEX: dict[str, Any] = {"index": {"dims": 64, "embed": "./graphs.py:embed"}}
PATIENT: dict[str, Any] = {"ttl_s": 600, "store_s": 30, "wait_s": 60, "lock_s": 60}
"""A cache that waits for a store on a busy machine."""
NEAR: dict[str, Any] = {"threshold": 0.8, "within_s": 30}
LEVELS: dict[str, Any] = {"check_s": 0.01, "faq": {"opening hours": "From 9 to 17 h."}}
HOURS, SKY = "what are your opening hours?", "why is the sky blue?"

Serve = Callable[..., AbstractAsyncContextManager[list[Client]]]


def project(folder: Path, guards: dict[str, Any], store: dict[str, Any] | None = None) -> Path:
    made = folder / "project"
    shutil.copytree(PROJECT, made, dirs_exist_ok=True)
    keys = json.loads((made / "langgraph.json").read_text())
    keys["graphs"] |= {"use": "./graphs.py:use", "shape": "./graphs.py:shape"}
    keys["waystation"] = {"guards": {"prices": "prices.json", **guards}}
    if store is not None:
        keys["store"] = store
    (made / "langgraph.json").write_text(json.dumps(keys))
    return made


@pytest.fixture
def serve(database_uri: str, tmp_path: Path) -> Serve:
    """Serve the graphs with a policy, with a client for each (identity, tenant)."""

    @asynccontextmanager
    async def serving(
        guards: dict[str, Any], *callers: tuple[str, str], store: dict[str, Any] | None = None
    ) -> AsyncGenerator[list[Client]]:
        settings = Settings(auth={"api_keys": True}) if callers else Settings()
        with live_server_on(database_uri, project=project(tmp_path, guards, store), settings=settings) as server:
            keys = [await new_key(database_uri, name, "user", tenant=tenant) for name, tenant in callers]
            async with AsyncExitStack() as stack:
                clients = [get_client(url=server.url, api_key=key) for key in keys or [None]]
                yield [await stack.enter_async_context(client) for client in clients]

    return serving


def told(name: str, query: str, number: int = 1) -> dict[str, Any]:
    """An input in which a model has asked for a tool."""
    calls = [{"name": name, "args": {"query": query}, "id": f"call-{number}", "type": "tool_call"}]
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": calls}]}


async def used(sdk: Client, name: str, query: str, number: int = 1) -> str:
    """What a tool says in a run of its own."""
    outcome = await sdk.runs.wait(None, "use", input=told(name, query, number), raise_error=False)
    if "__error__" in outcome:
        return outcome["__error__"].get("code") or outcome["__error__"]["message"]
    message = outcome["messages"][-1]
    assert (message["tool_call_id"], message["name"]) == (f"call-{number}", name)
    return message["content"]


def asked(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def said(sdk: Client, text: str, graph: str = "ask") -> tuple[str, Any]:
    """What a model says in a run of its own, and at which level."""
    message = (await sdk.runs.wait(None, graph, input=asked(text)))["messages"][-1]
    return message["content"], message["response_metadata"].get("level")


async def level_becomes(sdk: Client, level: str | None) -> None:
    """An operator's word, until runs go by it."""

    async def holds() -> bool:
        return (await said(sdk, "are we there?"))[1] == level

    if level is None:
        await sdk.http.delete("/guards/level")
    else:
        await sdk.http.put("/guards/level", json={"level": level})
    await eventually(holds)


def paid(database_uri: str) -> int:
    """How many calls of models are in the ledger."""
    return [kind for kind, *_ in ledger(database_uri)].count("model")


async def metric(sdk: Client, name: str, **labels: str) -> float:
    async with httpx.AsyncClient(base_url=sdk.http.client.base_url) as http:
        return await shown(http, name, **labels) or 0


class TestToolCache:
    async def test_runs_share_the_results_of_named_tools_and_a_hit_is_no_call(
        self, serve: Serve, database_uri: str
    ) -> None:
        rules = [{"tools": ["search_*"], "fold": ["query"], **PATIENT}]
        budgets = [{"size": 2, "unit": "tool_calls", "scope": "tenant", "window": "day"}]
        async with serve({"tool_cache": rules, "budgets": budgets}) as (sdk,):
            hits = await metric(sdk, "waystation_guard_cache_hits_total", layer="tool")
            first = await used(sdk, "search_web", "Oslo")
            assert [await used(sdk, "search_web", query, 7) for query in ("Oslo", " oslo ")] == [first] * 2
            mail = await used(sdk, "search_mail", "Oslo")
            assert await used(sdk, "search_mail", "Oslo", 3) == mail
            assert await metric(sdk, "waystation_guard_cache_hits_total", layer="tool") == hits + 3
            assert await used(sdk, "search_web", "Rome") == "budget_exceeded"
        kinds = [kind for kind, *_ in ledger(database_uri)]
        assert (kinds.count("cache_hit"), kinds.count("tool")) == (3, 2)

    async def test_a_tool_that_no_rule_names_is_called_each_time_and_so_is_one_of_other_runs(
        self, serve: Serve
    ) -> None:
        rules = [
            {"tools": ["search_web"], "for": {"graph": "use"}, **PATIENT},
            {"tools": ["search_mail"], "for": {"graph": "x"}, **PATIENT},
        ]
        async with serve({"tool_cache": rules}) as (sdk,):
            assert await used(sdk, "search_web", "a") == await used(sdk, "search_web", "a")
            assert await used(sdk, "search_mail", "a") != await used(sdk, "search_mail", "a")

    async def test_of_rules_for_a_tool_the_most_specific_holds(self, serve: Serve) -> None:
        rules = [
            {"tools": ["*"], **PATIENT},
            {"tools": ["search_web"], "ignore": ["query"], "for": {"graph": "use"}, **PATIENT},
        ]
        async with serve({"tool_cache": rules}) as (sdk,):
            assert await used(sdk, "search_web", "a") == await used(sdk, "search_web", "b")
            assert await used(sdk, "search_mail", "a") != await used(sdk, "search_mail", "b")

    async def test_a_result_is_the_tenants_own_and_permissions_come_before_it(self, serve: Serve) -> None:
        search: dict[str, Any] = {"tools": ["search_*"]}
        permissions = [
            {"for": {"user": "bob"}, "default": "allow", "rules": [{**search, "effect": "deny"}]},
            {"for": {"user": "eve"}, "default": "allow", "rules": [{**search, "effect": "approve"}]},
        ]
        callers = [("ann", "acme"), ("bob", "acme"), ("eve", "acme"), ("dan", "acme"), ("ann", "rival")]
        async with serve({"tool_cache": [search | PATIENT], "permissions": permissions}, *callers) as (
            ann,
            bob,
            eve,
            dan,
            rival,
        ):
            mine = await used(ann, "search_web", "a")
            assert await used(dan, "search_web", "a") == mine
            assert await used(rival, "search_web", "a") != mine
            assert await used(bob, "search_web", "a") == "not_permitted"
            thread = (await eve.threads.create())["thread_id"]
            waits = await eve.runs.wait(thread, "use", input=told("search_web", "a"))
            assert waits["__interrupt__"]
            approved = {"resume": {"decisions": [{"type": "approve"}]}}
            done = await eve.runs.wait(thread, "use", command=approved)
            assert done["messages"][-1]["content"] != mine

    async def test_errors_and_interrupts_are_not_kept(self, serve: Serve) -> None:
        async with serve({"tool_cache": [{"tools": ["*"], **PATIENT}]}) as (sdk,):
            assert await used(sdk, "search_broken", "a") != await used(sdk, "search_broken", "a")
            threads = [(await sdk.threads.create())["thread_id"] for _ in range(2)]
            for thread in threads:
                waits = await sdk.runs.wait(thread, "use", input=told("search_asking", "a"))
                assert waits["__interrupt__"][0]["value"] == "may I?"
            done = await sdk.runs.wait(threads[0], "use", command={"resume": "yes"})
            assert done["messages"][-1]["content"].startswith("yes ")


class TestSemanticCache:
    PASSWORD = "how do I change my password?"

    async def test_a_question_in_other_words_gets_the_kept_answer_where_that_is_asked_for(
        self, serve: Serve, database_uri: str
    ) -> None:
        near = [{**PATIENT, "semantic": NEAR}]
        async with serve({"cache": near, "budgets": [LIMIT]}, store=INDEX) as (sdk,):
            await said(sdk, self.PASSWORD)
            outcome = await sdk.runs.wait(None, "ask", input=asked("how do I change my password please?"))
            mark = outcome["messages"][-1]["response_metadata"]["waystation_cache"]
            assert mark["layer"] == "semantic"
            assert 0.8 <= mark["score"] < 1
            other = await sdk.runs.wait(None, "ask", input=asked(SKY))
            assert "waystation_cache" not in other["messages"][-1]["response_metadata"]
        assert [kind for kind, *_ in ledger(database_uri)] == ["model", "cache_hit", "model"]

    async def test_it_is_off_where_nobody_asks_for_it_and_is_the_tenants_own(
        self, serve: Serve, database_uri: str
    ) -> None:
        async with serve({"cache": [PATIENT], "budgets": [LIMIT]}, store=INDEX) as (sdk,):
            await said(sdk, self.PASSWORD)
            await said(sdk, "how do I change my password please?")
        assert [kind for kind, *_ in ledger(database_uri)] == ["model", "model"]
        callers = [("ann", "acme"), ("ann", "rival")]
        shared = [{**PATIENT, "scope": "shared", "version": "2", "semantic": NEAR}]
        async with serve({"cache": shared}, *callers, store=INDEX) as (ann, rival):
            await said(ann, self.PASSWORD)
            outcome = await rival.runs.wait(None, "ask", input=asked("how do I change my password please?"))
            assert "waystation_cache" not in outcome["messages"][-1]["response_metadata"]

    @pytest.mark.parametrize("store", [None, {"ttl": {"default_ttl": 5}}])
    async def test_a_project_without_an_index_does_not_start(
        self, tmp_path: Path, store: dict[str, Any] | None
    ) -> None:
        wrong = project(tmp_path, {"cache": [{"ttl_s": 600}, {"semantic": {}}]}, store)
        with pytest.raises(ConfigError, match=r"waystation\.guards\.cache\.1\.semantic needs store\.index"):
            read_project(wrong)


class TestMinimal:
    async def test_a_list_of_questions_answers_until_the_level_is_left(self, serve: Serve, database_uri: str) -> None:
        async with serve({"levels": {**LEVELS, "otherwise": "Call us."}, "budgets": [LIMIT]}) as (sdk,):
            assert await said(sdk, HOURS) == ("paid answers", None)
            await level_becomes(sdk, "minimal")
            before = paid(database_uri)
            assert await said(sdk, HOURS) == ("From 9 to 17 h.", "minimal")
            assert await said(sdk, SKY) == ("Call us.", "minimal")
            thread = (await sdk.threads.create())["thread_id"]
            stream = sdk.runs.stream(thread, "hang", input=asked(HOURS), stream_mode="messages-tuple")
            parts = [event.data[0]["content"] async for event in stream if event.event == "messages"]
            assert "".join(parts).startswith("From 9 to 17 h.")
            state = await sdk.threads.get_state(thread)
            assert state["metadata"]["waystation_level"] == "minimal"
            assert paid(database_uri) == before
            await level_becomes(sdk, None)
            assert await said(sdk, HOURS) == ("paid answers", None)

    async def test_an_answer_that_was_kept_goes_before_the_list(self, serve: Serve, database_uri: str) -> None:
        async with serve({"levels": LEVELS, "cache": [PATIENT], "budgets": [LIMIT]}) as (sdk,):
            await said(sdk, HOURS)
            await level_becomes(sdk, "minimal")
            before = paid(database_uri)
            assert await said(sdk, HOURS) == ("paid answers", "minimal")
            assert await said(sdk, f"{HOURS} please") == ("From 9 to 17 h.", "minimal")
            assert paid(database_uri) == before
        assert "cache_hit" in [kind for kind, *_ in ledger(database_uri)]

    async def test_without_a_list_it_says_that_the_service_is_limited(self, serve: Serve) -> None:
        async with serve({"levels": {"check_s": 0.01}}) as (sdk,):
            await level_becomes(sdk, "minimal")
            text, level = await said(sdk, HOURS)
            assert "limited" in text
            assert level == "minimal"

    async def test_a_call_for_a_schema_fails_with_a_code(self, serve: Serve, tmp_path: Path) -> None:
        async with serve({"levels": LEVELS, "budgets": [LIMIT]}) as (sdk,):
            await level_becomes(sdk, "minimal")
            outcome = await sdk.runs.wait(None, "shape", input=asked(HOURS), raise_error=False)
            assert (outcome["__error__"]["error"], outcome["__error__"]["code"]) == ("InMinimal", "minimal")

    async def test_the_list_may_be_a_file_that_is_read_at_the_start(self, serve: Serve, tmp_path: Path) -> None:
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / "faq.json").write_text('{"opening hours": "See the door."}')
        async with serve({"levels": {"check_s": 0.01, "faq": "faq.json"}}) as (sdk,):
            await level_becomes(sdk, "minimal")
            assert await said(sdk, HOURS) == ("See the door.", "minimal")
        (tmp_path / "project" / "faq.json").write_text('["opening hours"]')
        with pytest.raises(ConfigError, match=r"waystation\.guards\.levels\.faq is 'faq\.json': expected"):
            read_project(tmp_path / "project")
