"""Each method of the SDK's store, and of the HTTP client beneath, used."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk.errors import NotFoundError

from e2e.sdk_entries import covers
from e2e.sdk_kinds import all_of, bare
from live_server import Client


def own_label() -> str:
    return f"surface-{uuid.uuid4().hex}"


@covers("store.put_item", "namespace", "key", "value", "index", "ttl")
async def an_item_is_put_found_by_meaning_or_not(sdk: Client) -> None:
    mine = own_label()
    await sdk.store.put_item([mine], "k", {"text": "aaa"}, ttl=10)
    await sdk.store.put_item([mine], "title", {"text": "ccc", "title": "aaa"}, index=["title"])
    await sdk.store.put_item([mine], "off", {"text": "aaa"}, index=False)
    assert (await sdk.store.get_item([mine], "k"))["value"] == {"text": "aaa"}
    found = (await sdk.store.search_items([mine], query="aaa"))["items"]
    assert {item["key"]: item["score"] is not None for item in found} == {"k": True, "title": True, "off": False}


@covers("store.get_item", "namespace", "key", "refresh_ttl")
async def an_item_is_got(sdk: Client) -> None:
    mine = own_label()
    await sdk.store.put_item([mine, "u"], "k", {"n": 1}, ttl=10)
    for refresh in (True, False):
        item = await sdk.store.get_item([mine, "u"], "k", refresh_ttl=refresh)
        assert (item["namespace"], item["key"], item["value"]) == ([mine, "u"], "k", {"n": 1})
    assert await sdk.store.get_item([mine], "k") is None


@covers("store.delete_item", "namespace", "key")
async def an_item_is_deleted(sdk: Client) -> None:
    mine = own_label()
    await sdk.store.put_item([mine], "k", {"n": 1})
    await sdk.store.delete_item([mine], key="k")
    assert await sdk.store.get_item([mine], "k") is None


@covers("store.search_items", "namespace_prefix", "filter", "limit", "offset", "query", "refresh_ttl")
async def items_are_searched(sdk: Client) -> None:
    mine = own_label()
    for n, text in enumerate(("aaa", "bbb", "ccc")):
        await sdk.store.put_item([mine, f"u{n}"], "k", {"n": n, "text": text})

    async def found(**asked: Any) -> list[int]:
        return [item["value"]["n"] for item in (await sdk.store.search_items([mine], **asked))["items"]]

    assert await found(filter={"n": {"$gte": 1}}, refresh_ttl=False) == [2, 1]
    assert await found(limit=1, offset=1) == [1]
    assert (await found(query="ccc"))[0] == 2


@covers("store.list_namespaces", "prefix", "suffix", "max_depth", "limit", "offset")
async def namespaces_are_listed(sdk: Client) -> None:
    mine = own_label()
    for name in (["u1", "notes"], ["u2", "notes"], ["u2", "tasks"]):
        await sdk.store.put_item([mine, *name], "k", {})

    async def listed(**asked: Any) -> list[list[str]]:
        found = (await sdk.store.list_namespaces(prefix=[mine], **asked))["namespaces"]
        return [name[1:] for name in found]

    assert await listed(suffix=["notes"]) == [["u1", "notes"], ["u2", "notes"]]
    assert await listed(max_depth=2) == [["u1"], ["u2"]]
    assert await listed(limit=1, offset=2) == [["u2", "tasks"]]


# beneath: any route of the server, with the SDK's errors ------------------------------------------------------------
@covers("http.get", "path", "params", "headers", "on_response")
async def any_route_is_got(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    thread_id = (await sdk.threads.create())["thread_id"]
    given: dict[str, Any] = {"params": {"include": "ttl"}, "headers": {"x-mine": "1"}, "on_response": answers.append}
    assert (await sdk.http.get(f"/threads/{thread_id}", **given))["thread_id"] == thread_id
    assert (answers[0].status_code, answers[0].request.headers["x-mine"]) == (200, "1")
    with pytest.raises(NotFoundError):
        await sdk.http.get(f"/threads/{uuid.uuid4()}")


@covers("http.post", "path", "json", "params", "headers", "on_response")
async def any_route_is_posted_to(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    given: dict[str, Any] = {"params": {}, "headers": {}, "on_response": answers.append}
    thread = await sdk.http.post("/threads", json={"metadata": {"a": 1}}, **given)
    assert (thread["metadata"], answers[0].status_code) == ({"a": 1}, 200)


@covers("http.put", "path", "json", "params", "headers", "on_response")
async def any_route_is_put_to(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    item: dict[str, Any] = {"namespace": [own_label()], "key": "k", "value": {"n": 1}}
    await sdk.http.put("/store/items", json=item, params={}, headers={}, on_response=answers.append)
    assert answers[0].status_code == 204
    assert (await sdk.store.get_item(item["namespace"], "k"))["value"] == {"n": 1}


@covers("http.patch", "path", "json", "params", "headers", "on_response")
async def any_route_is_patched(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    path = f"/threads/{(await sdk.threads.create(metadata={'a': 1}))['thread_id']}"
    given: dict[str, Any] = {"params": {}, "headers": {}, "on_response": answers.append}
    patched = await sdk.http.patch(path, json={"metadata": {"b": 2}}, **given)
    assert (patched["metadata"], answers[0].status_code) == ({"a": 1, "b": 2}, 200)


@covers("http.delete", "path", "json", "params", "headers", "on_response")
async def any_route_is_deleted(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    mine = own_label()
    await sdk.store.put_item([mine], "k", {})
    given: dict[str, Any] = {"params": {}, "headers": {}, "on_response": answers.append}
    await sdk.http.delete("/store/items", json={"namespace": [mine], "key": "k"}, **given)
    assert (answers[0].status_code, await sdk.store.get_item([mine], "k")) == (204, None)


RUN = {"assistant_id": "steps", "input": {"n": 0}}


@covers("http.request_reconnect", "path", "method", "json", "params", "headers", "on_response", "reconnect_limit")
async def a_long_request_is_waited_for(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    given: dict[str, Any] = {"params": {}, "headers": {}, "on_response": answers.append, "reconnect_limit": 2}
    values = await sdk.http.request_reconnect("/runs/wait", "POST", json=RUN, **given)
    assert (values, answers[0].status_code) == ({"log": ["a", "b"], "n": 2}, 200)


@covers("http.stream", "path", "method", "json", "params", "headers", "on_response")
async def any_stream_is_read(sdk: Client) -> None:
    answers: list[httpx.Response] = []
    given: dict[str, Any] = {"params": {}, "headers": {}, "on_response": answers.append}
    parts = await all_of(sdk.http.stream("/runs/stream", "POST", json=RUN, **given))
    assert (parts[0].event, parts[-1].data) == ("metadata", {"log": ["a", "b"], "n": 2})
    assert answers[0].headers["content-type"].startswith("text/event-stream")


@covers("aclose", kinds=("async",))
async def the_client_is_closed(sdk: Client) -> None:
    await sdk.aclose()
    assert sdk.http.client.is_closed


@covers("close", kinds=("sync",))
async def the_client_without_async_is_closed(sdk: Client) -> None:
    await sdk.close()
    assert bare(sdk).http.client.is_closed
