"""The store through the official client and by hand: items, searches, namespaces, refusals, what graphs share."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk.errors import BadRequestError, UnprocessableEntityError

from live_server import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
def mine() -> str:
    """The first label of this test's namespaces: the server is others', too."""
    return f"store-{uuid.uuid4().hex}"


async def test_an_item_is_put_replaced_and_deleted(sdk: Client, mine: str) -> None:
    await sdk.store.put_item([mine, "u1"], "k", {"n": 1})
    first = await sdk.store.get_item([mine, "u1"], "k")
    assert (first["namespace"], first["key"], first["value"]) == ([mine, "u1"], "k", {"n": 1})
    await sdk.store.put_item([mine, "u1"], "k", {"m": 2})
    second = await sdk.store.get_item([mine, "u1"], "k")
    assert (second["value"], second["created_at"]) == ({"m": 2}, first["created_at"])
    assert second["updated_at"] > first["updated_at"]
    await sdk.store.delete_item([mine, "u1"], "k")
    await sdk.store.delete_item([mine, "u1"], "k")
    assert await sdk.store.get_item([mine, "u1"], "k") is None


def test_the_client_without_async_does_the_same(sync_sdk: Client, mine: str) -> None:
    sync_sdk.store.put_item([mine], "k", {"n": 1}, ttl=10)
    assert sync_sdk.store.get_item([mine], "k", refresh_ttl=True)["value"] == {"n": 1}
    assert [item["key"] for item in sync_sdk.store.search_items([mine])["items"]] == ["k"]
    assert sync_sdk.store.list_namespaces([mine]) == {"namespaces": [[mine]]}
    sync_sdk.store.delete_item([mine], "k")
    assert sync_sdk.store.search_items([mine]) == {"items": []}


async def test_searches_filter_and_page(sdk: Client, mine: str) -> None:
    for n in range(12):
        await sdk.store.put_item([mine, f"u{n}"], "k", {"n": n, "by": {"name": "ada" if n % 2 else "bob"}})
    found = await sdk.store.search_items([mine], filter={"n": {"$gte": 9}, "by": {"name": "ada"}})
    assert [item["value"]["n"] for item in found["items"]] == [11, 9]
    assert all(item["score"] is None for item in found["items"])
    assert len((await sdk.store.search_items([mine]))["items"]) == 10
    page = await sdk.store.search_items([mine], limit=5, offset=9)
    assert [item["value"]["n"] for item in page["items"]] == [2, 1, 0]
    assert [item["key"] for item in (await sdk.store.search_items([mine, "u1"]))["items"]] == ["k"]


async def test_a_search_without_a_prefix_sees_everything(http: httpx.AsyncClient, sdk: Client, mine: str) -> None:
    await sdk.store.put_item([mine], "k", {"mark": mine})
    bodies: list[dict[str, Any]] = [{"filter": {"mark": mine}}, {"namespace_prefix": [], "filter": {"mark": mine}}]
    for body in bodies:
        answer = await http.post("/store/items/search", json=body)
        assert [item["key"] for item in answer.json()["items"]] == ["k"]
    assert (await http.post("/store/items/search", json={})).status_code == 200


async def test_a_search_by_meaning_sorts_by_nearness(sdk: Client, mine: str) -> None:
    texts = {"k1": "aaa", "k2": "ccc ddd", "k3": "hhh"}
    await asyncio.gather(*(sdk.store.put_item([mine], key, {"text": text}) for key, text in texts.items()))
    await sdk.store.put_item([mine], "off", {"text": "ccc"}, index=False)
    await sdk.store.put_item([mine], "title", {"text": "aaa", "title": "ccc"}, index=["title"])
    items = (await sdk.store.search_items([mine], query="ccc"))["items"]
    assert [item["key"] for item in items[:2]] == ["title", "k2"]
    assert items[-1]["key"] == "off"
    scores = [item["score"] for item in items]
    assert scores[-1] is None
    assert scores[:-1] == sorted(scores[:-1], reverse=True)


async def test_namespaces_are_listed(sdk: Client, mine: str) -> None:
    names = [[mine, "u1", "notes"], [mine, "u2", "notes"], [mine, "u2", "tasks"], [mine, "u10"]]
    await asyncio.gather(*(sdk.store.put_item(name, "k", {}) for name in names))

    async def listed(**asked: Any) -> list[list[str]]:
        return (await sdk.store.list_namespaces(**asked))["namespaces"]

    assert await listed(prefix=[mine]) == sorted(names)
    assert await listed(prefix=[mine, "u1"]) == [names[0]]
    assert await listed(prefix=[mine, "*"], suffix=["notes"]) == names[:2]
    assert await listed(prefix=[mine], max_depth=2) == [[mine, "u1"], [mine, "u10"], [mine, "u2"]]
    assert await listed(prefix=[mine], max_depth=2, limit=1, offset=1) == [[mine, "u10"]]


async def test_what_a_graph_puts_is_seen_here_and_the_reverse(sdk: Client, thread_id: str) -> None:
    await sdk.store.delete_item(["memories"], "last")
    await sdk.runs.wait(thread_id, "memory", input={})
    assert (await sdk.store.get_item(["memories"], "last"))["value"] == {"text": "graph wrote this"}


WRONG_LABELS: list[Any] = [["a.b"], [""], ["a", "b.c"], ["."], ["a", ""]]


@pytest.mark.parametrize("namespace", WRONG_LABELS, ids=str)
async def test_labels_are_not_empty_and_hold_no_period(http: httpx.AsyncClient, namespace: list[str]) -> None:
    wrong = next(label for label in namespace if not label or "." in label)
    item: dict[str, Any] = {"namespace": namespace, "key": "k", "value": {}}
    asked = [
        await http.put("/store/items", json=item),
        await http.request("DELETE", "/store/items", json=item),
        await http.post("/store/items/search", json={"namespace_prefix": namespace}),
        await http.post("/store/namespaces", json={"prefix": namespace}),
        await http.post("/store/namespaces", json={"suffix": namespace}),
    ]
    for answer in asked:
        assert answer.status_code == 422
        assert answer.json() == f"Namespace label '{wrong}' must be a non-empty string without periods"


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ({"namespace": "a"}, 400, "Key is required"),
        ({"key": "k"}, 422, "Namespace label ''"),
        ({"namespace": "a..b", "key": "k"}, 422, "Namespace label ''"),
        ({"namespace": ".acme.a", "key": "k"}, 422, "Namespace label ''"),
        ({"namespace": "a", "key": "no\0such"}, 200, "null"),
        ({"namespace": "a\0", "key": "k"}, 200, "null"),
        ({"namespace": "%", "key": "%"}, 200, "null"),
    ],
)
async def test_getting_an_item(http: httpx.AsyncClient, query: dict[str, str], status: int, body: str) -> None:
    answer = await http.get("/store/items", params=query)
    assert (answer.status_code, body in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"namespace": []}, 400, "Namespace cannot be empty."),
        ({"namespace": ["langgraph"]}, 400, "Root label for namespace cannot be \"langgraph\". Got: ('langgraph',)"),
        ({"key": None}, 422, "key"),
        ({"value": "s"}, 422, "value"),
        ({"value": None}, 422, "value"),
        ({"index": True}, 422, "index"),
        ({"index": "text"}, 422, "index"),
        ({"index": ["x" * 501]}, 422, "index"),
        ({"ttl": 0}, 422, "ttl"),
        ({"ttl": -1}, 422, "ttl"),
        ({"ttl": 1e300}, 422, "ttl"),
        ({"ttl": "1"}, 422, "ttl"),
        ({"key": "k" * 2500}, 422, "namespace and key"),
        ({"namespace": ["n"] * 1500}, 422, "namespace and key"),
    ],
    ids=lambda x: str(x)[:60],
)
async def test_a_put_that_makes_no_sense_is_refused(
    http: httpx.AsyncClient, mine: str, change: dict[str, Any], status: int, said: str
) -> None:
    item: dict[str, Any] = {"namespace": [mine], "key": "k", "value": {}, **change}
    answer = await http.put("/store/items", json=item)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert (await http.post("/store/items/search", json={"namespace_prefix": [mine]})).json() == {"items": []}


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 0},
        {"limit": 1001},
        {"offset": -1},
        {"filter": {"n": {"$where": "1"}}},
        {"filter": {"n": {"$gt": 1, "m": 1}}},
        {"filter": [1]},
        {"filter": {str(n): n for n in range(201)}},
        {"query": 7},
        {"namespace_prefix": "a"},
    ],
    ids=lambda x: str(x)[:60],
)
async def test_a_search_that_makes_no_sense_is_refused(http: httpx.AsyncClient, change: dict[str, Any]) -> None:
    answer = await http.post("/store/items/search", json={"namespace_prefix": ["a"], **change})
    assert (answer.status_code, next(iter(change)) in answer.json()["detail"]) == (422, True), answer.text


async def test_any_value_can_be_stored_and_found_again(http: httpx.AsyncClient, mine: str) -> None:
    values: list[Any] = [
        {"a\0b": "c\0"},
        {"deep": [[[[{"x": {"y": [None, True, -0.5, 2**53, 1e300, 1.7e308]}}]]]]},
        {"": "", "\U0001f600": "\ufffe\uffff"},
        {"$gt": {"$eq": 1}},
        {"__encryption__": "no"},
    ]
    for n, value in enumerate(values):
        put = await http.put("/store/items", json={"namespace": [mine, "ü%_\\"], "key": f"k{n}", "value": value})
        assert put.status_code == 204, put.text
    found = (await http.post("/store/items/search", json={"namespace_prefix": [mine], "limit": 100})).json()["items"]
    shown = {item["key"]: item["value"] for item in found}
    assert shown == {"k0": {"a\ufffdb": "c\ufffd"}} | {f"k{n}": value for n, value in enumerate(values) if n}
    got = await http.get("/store/items", params={"namespace": f"{mine}.ü%_\\", "key": "k1"})
    assert got.json()["value"] == values[1]


async def test_the_official_client_raises_what_it_documents(sdk: Client) -> None:
    with pytest.raises(BadRequestError, match="Namespace cannot be empty"):
        await sdk.store.put_item([], "k", {})
    with pytest.raises(UnprocessableEntityError):
        await sdk.store.put_item([""], "k", {})
