"""The store where a project has auth, tenants, a TTL and an embedding function that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from e2e.authorized import http_as, sdk_as
from eventually import eventually
from live_server import Client, LiveServer, live_server_on

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).parent.parent / "fixtures" / "projects" / "store"


@pytest.fixture(scope="module")
def database(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture(scope="module")
def url(database: str) -> Generator[str]:
    with live_server_on(database, project=PROJECT) as server:
        assert isinstance(server, LiveServer)
        yield server.url


async def everything(sdk: Client) -> list[list[str]]:
    """All that a client sees: namespace and key."""
    found = await sdk.store.search_items([], limit=1000)
    return sorted([*item["namespace"], item["key"]] for item in found["items"])


@pytest.mark.parametrize("graph", ["notes", "outer"])
async def test_runs_see_the_items_of_their_tenant_only(url: str, graph: str) -> None:
    tenants = [f"{graph}-one", f"{graph}-two"]
    for tenant in tenants:
        async with sdk_as(url, f"{tenant}:free") as sdk:
            await sdk.store.put_item(["from", "outside"], tenant, {"text": tenant})
            key = f"run-of-{tenant}"
            values = await sdk.runs.wait(None, graph, input={"key": key, "query": "abc"})
            mine = [["from", "outside", tenant], ["notes", "async", key], ["notes", "sync", key]]
            assert values["seen"] == [
                mine,
                [["from", "outside"], ["notes", "async"], ["notes", "sync"]],
                {"text": key},
            ]
            assert await everything(sdk) == mine
            assert (await sdk.runs.wait(None, "made", input={}))["seen"] == [key, key]
            assert (await sdk.store.list_namespaces(prefix=["*", "sync"])) == {"namespaces": [["notes", "sync"]]}


async def test_nothing_of_another_tenant_can_be_named(url: str) -> None:
    async with sdk_as(url, "acme:free") as sdk:
        await sdk.store.put_item(["secret"], "k", {"text": "aaa"})
    for tenant in ("default", "acm", "acme%2E", "acme.secret", "%"):
        async with http_as(url, f"{tenant}:free") as http:
            for namespace in ("secret", ".acme.secret", "acme.secret", "%acme.secret"):
                answer = await http.get("/store/items", params={"namespace": namespace, "key": "k"})
                assert answer.status_code in (422, 401, 403) or answer.json() is None
            found = await http.post("/store/items/search", json={"filter": {"text": "aaa"}, "query": "aaa"})
            assert found.status_code in (401, 403) or found.json() == {"items": []}
            listed = await http.post("/store/namespaces", json={"suffix": ["secret"]})
            assert listed.status_code in (401, 403) or listed.json() == {"namespaces": []}
            await http.request("DELETE", "/store/items", json={"namespace": ["secret"], "key": "k"})
    async with sdk_as(url, "acme:free") as sdk:
        assert (await sdk.store.get_item(["secret"], "k"))["value"] == {"text": "aaa"}


async def test_the_namespace_that_a_rule_leaves_is_the_one_used(url: str) -> None:
    async with sdk_as(url, "rules:scoped") as scoped, sdk_as(url, "rules:free") as free:
        await free.store.put_item(["notes"], "other", {})
        await scoped.store.put_item(["notes"], "k", {"n": 1})
        assert (await free.store.get_item(["scoped", "notes"], "k"))["value"] == {"n": 1}
        assert (await scoped.store.get_item(["notes"], "k"))["namespace"] == ["scoped", "notes"]
        assert await everything(scoped) == [["scoped", "notes", "k"]]
        assert await scoped.store.list_namespaces() == {"namespaces": [["scoped", "notes"]]}
        await scoped.store.delete_item(["notes"], "k")
        assert await everything(free) == [["notes", "other"]]


async def test_anything_else_that_a_rule_leaves_is_used_too(url: str) -> None:
    async with sdk_as(url, "more:stamping") as stamping, sdk_as(url, "more:few") as few:
        await stamping.store.put_item(["n"], "k1", {"text": "a"})
        await stamping.store.put_item(["n"], "k2", {"text": "a"})
        assert (await few.store.get_item(["n"], "k1"))["value"] == {"text": "a", "by": "stamping"}
        found = await few.store.search_items(["n"], query="a")
        assert [item["score"] for item in found["items"]] == [None]
        assert len((await few.store.list_namespaces())["namespaces"]) == 1
    async with sdk_as(url, "more:renaming") as renaming:
        await renaming.store.put_item(["n"], "k", {})
        assert (await renaming.store.get_item(["n"], "k"))["key"] == "k!"


@pytest.mark.parametrize(
    ("name", "status"), [("refused", 403), ("filtering", 403), ("garbled", 403), ("dotted", 422), ("nowhere", 422)]
)
async def test_what_the_rules_do_not_allow_does_not_happen(url: str, name: str, status: int) -> None:
    item: dict[str, Any] = {"namespace": ["one"], "key": "k", "value": {}}
    async with http_as(url, f"kept:{name}") as http:
        answers = [
            await http.put("/store/items", json=item),
            await http.get("/store/items", params={"namespace": "one", "key": "k"}),
            await http.request("DELETE", "/store/items", json=item),
            await http.post("/store/items/search", json={}),
            await http.post("/store/namespaces", json={}),
        ]
    assert [answer.status_code for answer in answers] == [status] * 5
    async with sdk_as(url, "kept:free") as sdk:
        assert await everything(sdk) == []


@pytest.mark.parametrize(
    ("text", "said"), [("explode", "ValueError"), ("leave", "RuntimeError"), ("short", "a vector of 1 numbers")]
)
async def test_a_failing_embedding_function_is_told_and_harms_nobody(url: str, text: str, said: str) -> None:
    async with http_as(url, "broken:free") as http:
        item = {"namespace": ["n"], "key": "k", "value": {"text": text}}
        answers = await asyncio.gather(
            http.put("/store/items", json=item),
            http.post("/store/items/search", json={"query": text}),
            http.put("/store/items", json={**item, "key": f"fine-{text}", "value": {"text": "abc"}}),
        )
        assert [answer.status_code for answer in answers] == [400, 400, 204]
        assert all(said in answer.json()["detail"] for answer in answers[:2])
        assert "secret" not in answers[0].text
        assert (await http.get("/store/items", params={"namespace": "n", "key": "k"})).json() is None
        assert (await http.put("/store/items", json={**item, "index": False})).status_code == 204
        await http.request("DELETE", "/store/items", json=item)


async def test_the_store_answers_while_texts_are_embedded(url: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with http_as(url, "slow:free") as http:
        slow = asyncio.create_task(
            http.put("/store/items", json={"namespace": ["n"], "key": "slow", "value": {"text": f"until {go}"}})
        )
        for n in range(5):
            put = await http.put("/store/items", json={"namespace": ["n"], "key": f"k{n}", "value": {"n": n}})
            assert put.status_code == 204
        assert not slow.done()
        go.touch()
        assert (await slow).status_code == 204


async def test_expired_items_are_not_there_and_the_worker_sweeps_them(url: str, database: str) -> None:
    async with (
        http_as(url, "ttl:free") as http,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as conn,
    ):

        async def minutes_left(key: str) -> float | None:
            query = "select extract(epoch from expires_at - now())::float8 / 60 from store where key = %s"
            row = await (await conn.execute(query, [key])).fetchone()
            return row[0] if row else -1

        for key, given in {"default": {}, "own": {"ttl": 1.5}, "never": {"ttl": None}}.items():
            await http.put("/store/items", json={"namespace": ["ttl"], "key": key, "value": {}, **given})
        assert await minutes_left("default") == pytest.approx(120, abs=1)
        assert await minutes_left("own") == pytest.approx(1.5, abs=0.4)
        assert await minutes_left("never") is None

        await conn.execute("update store set expires_at = expires_at - interval '60 min' where key = 'default'")
        await http.get("/store/items", params={"namespace": "ttl", "key": "default"})
        assert await minutes_left("default") == pytest.approx(60, abs=1)
        await http.get("/store/items", params={"namespace": "ttl", "key": "default", "refresh_ttl": "true"})
        assert await minutes_left("default") == pytest.approx(120, abs=1)
        await conn.execute("update store set expires_at = expires_at - interval '1 min' where key = 'own'")
        await http.post("/store/items/search", json={"namespace_prefix": ["ttl"], "refresh_ttl": True})
        assert await minutes_left("own") == pytest.approx(1.5, abs=0.4)

        await conn.execute("update store set expires_at = now() - interval '1 s' where key = 'own'")
        assert (await http.get("/store/items", params={"namespace": "ttl", "key": "own"})).json() is None

        async def is_swept() -> bool:
            return await minutes_left("own") == -1

        await eventually(is_swept)


async def test_a_switched_off_store_is_not_there_and_graphs_still_have_it(
    make_database: Callable[[], str], tmp_path: Path
) -> None:
    text = (PROJECT / "langgraph.json").read_text().replace('"store": {', '"http": {"disable_store": true}, "store": {')
    for name in ("graphs.py", "auth.py", "embed.py"):
        (tmp_path / name).write_text((PROJECT / name).read_text())
    (tmp_path / "langgraph.json").write_text(text)
    with live_server_on(make_database(), project=tmp_path) as server:
        async with httpx.AsyncClient(
            base_url=server.url, headers={"authorization": "Bearer default:free"}, timeout=60
        ) as http:
            assert (await http.post("/store/items/search", json={})).status_code == 404
            assert (await http.get("/store/items", params={"namespace": "a", "key": "k"})).status_code == 404
            assert "/store/items" not in (await http.get("/openapi.json")).json()["paths"]
        async with sdk_as(server.url, "default:free") as sdk:
            assert (await sdk.runs.wait(None, "notes", input={"key": "k"}))["seen"][2] == {"text": "k"}
