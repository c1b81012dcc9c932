"""The project's `Auth` object: who comes in, what they see, and what their graphs know of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError, PermissionDeniedError

from e2e.authorized import PROJECT, http_as, sdk_as
from live_server import LiveServer, live_server_on
from waystation.config import Settings

pytestmark = pytest.mark.anyio

NOT_FOUND = (NotFoundError, httpx.HTTPStatusError)
"""What the client raises for 404; for the answers that take long it is its HTTP library's own."""


@pytest.fixture(scope="module")
def server(make_database: Callable[[], str]) -> Generator[LiveServer]:
    """A server whose project has handlers of every kind."""
    with live_server_on(make_database(), project=PROJECT) as server:
        yield server


@pytest.fixture
def url(server: LiveServer) -> str:
    return server.url


# -- coming in -------------------------------------------------------------------------------------------------------


async def test_a_handler_chooses_status_text_and_headers(url: str) -> None:
    async with http_as(url, None) as http:
        answer = await http.post("/threads", json={})
    assert (answer.status_code, answer.json()["detail"]) == (401, "who are you?")
    assert answer.headers["www-authenticate"] == 'Bearer realm="here"'
    async with http_as(url, "teapot") as http:
        answer = await http.post("/threads", json={})
    assert (answer.status_code, answer.json()["detail"], answer.headers["x-pot"]) == (418, "short and stout", "tea")


@pytest.mark.parametrize("token", ["broken", "nobody"])
async def test_a_handler_that_fails_lets_nobody_in_and_tells_nothing(url: str, token: str) -> None:
    async with http_as(url, token) as http:
        answer = await http.post("/threads", json={})
    assert (answer.status_code, answer.json()["detail"]) == (401, "Authentication failed")


@pytest.mark.parametrize(("method", "path"), [("GET", "/no/such/path"), ("PUT", "/threads"), ("POST", "/runs/nothing")])
async def test_what_is_not_there_is_told_only_to_those_who_may_come_in(url: str, method: str, path: str) -> None:
    async with http_as(url, None) as http:
        assert (await http.request(method, path)).status_code == 401
    async with http_as(url, "acme:ann") as http:
        assert (await http.request(method, path)).status_code in (404, 405)


@pytest.mark.parametrize(
    "path", ["/ok", "/info", "/health", "/ready", "/metrics", "/docs", "/openapi.json", "/ok?check_db=1"]
)
async def test_the_servers_own_routes_ask_for_nothing(url: str, path: str) -> None:
    async with http_as(url, None) as http:
        assert (await http.get(path)).status_code == 200


async def test_a_browsers_question_before_the_request_asks_for_nothing(url: str) -> None:
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with http_as(url, None, **asks) as http:
        assert (await http.options("/threads")).status_code == 200


async def test_refusals_can_be_read_by_pages_of_other_origins(url: str) -> None:
    async with http_as(url, None, origin="https://app.example") as http:
        answer = await http.post("/threads", json={})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")


async def test_a_handler_may_read_the_request_and_the_operation_still_gets_its_body(url: str) -> None:
    async with http_as(url, "echo") as http:
        made = await http.post("/threads", json={"metadata": {"as": "mirror", "large": "x" * 200_000}})
        assert made.status_code == 200, made.text
        assert made.json()["metadata"]["owner"] == "mirror"
        assert len(made.json()["metadata"]["large"]) == 200_000


async def test_a_body_that_is_too_large_is_refused_also_where_the_handler_reads_it(url: str) -> None:
    async with http_as(url, "echo") as http:
        answer = await http.post("/threads", content=b"{" + b" " * 21_000_000 + b"}")
    assert answer.status_code == 413


async def test_who_is_remembered_by_a_header_is_not_asked_again(url: str) -> None:
    async def identity(session: str) -> str:
        async with http_as(url, "acme:count", **{"x-session": session}) as http:
            return (await http.post("/threads", json={})).json()["metadata"]["owner"]

    first, other = await identity("one"), await identity("two")
    assert first == await identity("one")
    assert other != first
    await identity("three")  # two are remembered: the one used longest ago is asked anew
    assert await identity("two") != other


# -- what is seen ----------------------------------------------------------------------------------------------------


async def test_what_a_filter_hides_is_not_there(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann, sdk_as(url, "acme:bob") as bob:
        thread_id = (await ann.threads.create(metadata={"x": 1}))["thread_id"]
        await ann.runs.wait(thread_id, "show", input={})
        for hidden in (
            bob.threads.get(thread_id),
            bob.threads.update(thread_id, metadata={"owner": "bob"}),
            bob.threads.delete(thread_id),
            bob.threads.get_state(thread_id),
            bob.threads.get_history(thread_id),
            bob.threads.update_state(thread_id, {"seen": {}}),
            bob.runs.list(thread_id),
            bob.runs.create(thread_id, "show", input={}),
            bob.runs.wait(thread_id, "show", input={}, if_not_exists="create"),
        ):
            with pytest.raises(NOT_FOUND):
                await hidden
        with pytest.raises(ConflictError):
            await bob.threads.copy(thread_id)
        with pytest.raises(ConflictError):
            await bob.threads.create(thread_id=thread_id, if_exists="do_nothing")
        assert await bob.threads.search(ids=[thread_id]) == []
        assert await bob.threads.count(metadata={"x": 1}) == 0
        assert (await bob.threads.prune([thread_id], strategy="delete"))["pruned_count"] == 0
        assert [t["thread_id"] for t in await ann.threads.search(metadata={"x": 1})] == [thread_id]
        assert await ann.threads.count(metadata={"x": 1}) == 1
        assert (await ann.threads.get(thread_id))["metadata"]["owner"] == "ann"


async def test_runs_of_hidden_threads_cannot_be_reached(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann, http_as(url, "acme:bob") as bob:
        thread_id = (await ann.threads.create())["thread_id"]
        run_id = (await ann.runs.create(thread_id, "show", input={}, stream_resumable=True))["run_id"]
        await ann.runs.join(thread_id, run_id)
        path = f"/threads/{thread_id}/runs/{run_id}"
        for method, end in (("GET", ""), ("GET", "/join"), ("GET", "/stream"), ("POST", "/cancel"), ("DELETE", "")):
            answer = await bob.request(method, path + end)
            assert answer.status_code == 404, (method, end, answer.text)
        assert (await bob.get(f"/runs/{run_id}/stream")).status_code == 404
        assert (await bob.get(f"/threads/{thread_id}/stream")).status_code == 404
        events = await bob.post(f"/threads/{thread_id}/stream/events", json={"channels": ["values"]})
        assert (events.status_code, events.text) == (200, "")
        commands: list[dict[str, Any]] = [
            {"id": 1, "method": "run.start", "params": {"assistant_id": "show", "input": {}}},
            {"id": 2, "method": "agent.getTree", "params": {}},
        ]
        for command in commands:
            told = await bob.post(f"/threads/{thread_id}/commands", json=command)
            assert (told.status_code, told.json()["type"]) == (200, "error"), told.text
        named: dict[str, Any] = {"thread_id": thread_id, "run_ids": [run_id]}
        assert (await bob.post("/runs/cancel", json=named)).status_code == 404
        assert (await bob.post("/runs/cancel", json={"status": "all"})).status_code == 404
        assert (await ann.runs.get(thread_id, run_id))["status"] == "success"


async def test_bulk_cancels_stop_only_what_the_caller_sees(url: str) -> None:
    async with sdk_as(url, "acme:cancelling") as one, sdk_as(url, "acme:other") as other:
        mine = (await one.threads.create())["thread_id"]
        theirs = (await other.threads.create())["thread_id"]
        wanted = await one.runs.create(mine, "show", input={}, after_seconds=1000)
        spared = await other.runs.create(theirs, "show", input={}, after_seconds=1000)
        await one.runs.cancel_many(status="pending")
        assert (await one.runs.get(mine, wanted["run_id"]))["status"] == "interrupted"
        assert (await other.runs.get(theirs, spared["run_id"]))["status"] == "pending"
        await other.runs.cancel(theirs, spared["run_id"])


async def test_a_filter_may_ask_for_several_members_and_parts_of_lists(url: str) -> None:
    async with http_as(url, "acme:ann") as ann, sdk_as(url, "acme:team") as team:
        marked: list[tuple[str, bool]] = []
        for metadata, seen in (
            ({"team": ["blue", "green", "red"], "kind": "work"}, True),
            ({"team": ["blue", "red"], "kind": "play"}, False),
            ({"team": ["blue"], "kind": "work"}, False),
            ({"team": "red blue", "kind": "work"}, False),
            ({"kind": "work"}, False),
        ):
            made = (await ann.post("/threads", json={"metadata": metadata})).json()
            marked.append((made["thread_id"], seen))
        found = await team.threads.search(ids=[thread_id for thread_id, _ in marked])
        assert {t["thread_id"] for t in found} == {thread_id for thread_id, seen in marked if seen}
        assert await team.threads.count() == 1


@pytest.mark.parametrize(
    ("name", "status", "detail"),
    [
        ("refused", 403, "Forbidden"),
        ("asserting", 403, "asserted away"),
        ("crashing", 403, "Forbidden"),
        ("badfilter", 403, "Forbidden"),
        ("badanswer", 403, "Forbidden"),
        ("garbled", 403, "Forbidden"),
        ("teapotting", 409, "not now"),
    ],
)
async def test_a_rule_that_refuses_or_fails_keeps_the_caller_out(url: str, name: str, status: int, detail: str) -> None:
    async with http_as(url, f"acme:{name}") as http:
        asks: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("POST", "/threads", {}),
            ("POST", "/threads/search", {}),
            ("PATCH", f"/threads/{uuid.uuid4()}", {"metadata": {}}),
        )
        for method, path, body in asks:
            answer = await http.request(method, path, json=body)
            assert (answer.status_code, answer.json()["detail"]) == (status, detail), (method, path)
            assert ("x-why" in answer.headers) == (name == "teapotting")


async def test_the_most_specific_rule_decides(url: str) -> None:
    async with sdk_as(url, "acme:keeper") as keeper:
        thread_id = (await keeper.threads.create())["thread_id"]
        with pytest.raises(PermissionDeniedError):
            await keeper.threads.delete(thread_id)
        run = await keeper.runs.create(thread_id, "show", input={}, after_seconds=1000)
        with pytest.raises(PermissionDeniedError):
            await keeper.runs.delete(thread_id, run["run_id"])
        await keeper.runs.cancel(thread_id, run["run_id"])
        assert (await keeper.threads.get(thread_id))["thread_id"] == thread_id


async def test_what_a_rule_rewrites_is_what_is_used(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann, http_as(url, "acme:rejecting") as rejecting:
        thread = await ann.threads.create()
        assert thread["metadata"]["owner"] == "ann"
        patched = await ann.threads.update(thread["thread_id"], metadata={"a": 1, "owner": "mallory"})
        assert (patched["metadata"]["a"], patched["metadata"]["owner"]) == (1, "ann")
        copied = await ann.threads.copy(thread["thread_id"])
        assert copied["metadata"]["owner"] == "ann"
        values = await ann.runs.wait(thread["thread_id"], "show", input={})
        assert values["seen"]["added"] == "by the handler for ann"
        run = (await ann.runs.list(thread["thread_id"]))[0]
        assert run["metadata"]["ran_by"] == "ann"
        busy = (await rejecting.post("/threads", json={})).json()["thread_id"]
        first = await rejecting.post(f"/threads/{busy}/runs", json={"assistant_id": "show", "after_seconds": 1000})
        again = await rejecting.post(f"/threads/{busy}/runs", json={"assistant_id": "show"})
        assert (first.status_code, again.status_code) == (200, 409)
        await rejecting.post(f"/threads/{busy}/runs/{first.json()['run_id']}/cancel")


async def test_assistants_belong_to_those_who_made_them(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann, sdk_as(url, "acme:bob") as bob, sdk_as(url, "acme:searching") as third:
        shelf = {"shelf": "top"}
        made = await ann.assistants.create("show", metadata=shelf, config={"configurable": {"secret": "s"}})
        assistant_id = made["assistant_id"]
        assert made["metadata"]["owner"] == "ann"
        for hidden in (
            bob.assistants.get(assistant_id),
            bob.assistants.get_graph(assistant_id),
            bob.assistants.get_schemas(assistant_id),
            bob.assistants.get_subgraphs(assistant_id),
            bob.assistants.update(assistant_id, name="mine"),
            bob.assistants.get_versions(assistant_id),
            bob.assistants.set_latest(assistant_id, 1),
            bob.assistants.delete(assistant_id),
            bob.runs.wait(None, assistant_id, input={}),
        ):
            with pytest.raises(NOT_FOUND):
                await hidden
        assert (await bob.runs.wait(None, "show", input={}))["seen"]["id"] == "bob"
        found = await third.assistants.search(limit=100)
        assert [a["assistant_id"] for a in found] == [assistant_id]
        assert await third.assistants.count() == 1
        assert (await ann.assistants.update(assistant_id, name="hers"))["name"] == "hers"
        await ann.assistants.delete(assistant_id)


# -- what graphs know ------------------------------------------------------------------------------------------------


async def test_a_graph_sees_its_user_by_item_and_by_attribute(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann:
        values = await ann.runs.wait(None, "show", input={})
    seen = values["seen"]
    assert seen["is_user"]
    assert seen["by_item"] == seen["by_attribute"] == seen["id"] == seen["user_id"] == "ann"
    assert (seen["permissions"], seen["of_config"], seen["plan"]) == (["read"], ["read"], "free")
    assert values["user"]["nested"] == {"a": [1]}


@pytest.mark.parametrize(("token", "name"), [("text", "texter"), ("acme:objo", "Objo")])
async def test_a_handler_may_return_a_text_or_an_object(url: str, token: str, name: str) -> None:
    async with sdk_as(url, token) as client:
        if token == "text":
            with pytest.raises(PermissionDeniedError):  # this project wants a tenant, and a text has none
                await client.threads.create()
            return
        seen = (await client.runs.wait(None, "show", input={}))["seen"]
    assert (seen["display_name"], seen["plan"], seen["permissions"]) == (name, "pro", ["write"])


async def test_rules_see_the_very_object_that_the_handler_returned(url: str) -> None:
    async with http_as(url, "acme:objgreeted") as http:
        made = (await http.post("/threads", json={})).json()
    assert made["metadata"]["greeting"] == "hello objgreeted"
    async with http_as(url, "acme:greeted") as http:  # a dictionary has no such method: the rule fails
        assert (await http.post("/threads", json={})).status_code == 403


async def test_nobody_can_pass_for_somebody_else_by_the_config(url: str) -> None:
    forged = {"langgraph_auth_user_id": "mallory", "langgraph_auth_user": {"identity": "mallory"}, "user_id": "mallory"}
    async with sdk_as(url, "acme:ann") as ann:
        assistant = await ann.assistants.create("show", config={"configurable": forged})
        for assistant_id in ("show", assistant["assistant_id"]):
            values = await ann.runs.wait(None, assistant_id, input={}, config={"configurable": forged})
            assert {values["seen"]["id"], values["seen"]["by_item"], values["seen"]["user_id"]} == {"ann"}


async def test_a_run_keeps_its_user_while_it_waits(url: str) -> None:
    async with sdk_as(url, "acme:objo") as ann:
        thread_id = (await ann.threads.create())["thread_id"]
        first = await ann.runs.create(thread_id, "show", input={})
        second = await ann.runs.create(thread_id, "show", input={})
        for run in (first, second):
            await ann.runs.join(thread_id, run["run_id"])
        assert (await ann.threads.get_state(thread_id))["values"]["seen"]["by_attribute"] == "objo"
        kept = (await ann.runs.get(thread_id, second["run_id"]))["kwargs"]["config"]["configurable"]
        assert kept["langgraph_auth_user"]["identity"] == "objo"


async def test_a_factory_knows_for_whom_it_makes_the_graph(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann:
        thread_id = (await ann.threads.create())["thread_id"]
        assert (await ann.runs.wait(thread_id, "made", input={}))["factory_user"] == "ann"
        assert (await ann.threads.get_state(thread_id))["values"]["factory_user"] == "ann"


async def test_whoever_answers_an_interrupt_is_the_user_from_then_on(url: str) -> None:
    async with sdk_as(url, "acme:ann") as ann:
        thread_id = (await ann.threads.create())["thread_id"]
        await ann.runs.wait(thread_id, "pausing", input={})
        values = await ann.runs.wait(thread_id, "pausing", command={"resume": "ann"})
    assert (values["answer"], values["seen"]["id"]) == ("ann", "ann")


# -- the Studio ------------------------------------------------------------------------------------------------------


async def test_the_studios_header_alone_opens_nothing(url: str) -> None:
    async with http_as(url, None, **{"x-auth-scheme": "langsmith"}) as http:
        assert (await http.post("/threads/search", json={})).status_code == 401


async def test_in_development_the_studio_comes_in_from_this_machine(database_uri: str) -> None:
    with live_server_on(database_uri, project=PROJECT, settings=Settings(studio_auth="local")) as server:
        async with http_as(server.url, None, **{"x-auth-scheme": "langsmith"}) as http:
            made = await http.post("/threads", json={})
            assert made.status_code == 200
            assert "owner" not in made.json()["metadata"]  # the rules saw a StudioUser
            path = f"/threads/{made.json()['thread_id']}/runs/wait"
            values = (await http.post(path, json={"assistant_id": "show", "input": {}})).json()
            assert values["seen"]["is_studio"]
            assert values["seen"]["id"] == "langgraph-studio-user"
        async with http_as(server.url, None) as http:
            assert (await http.post("/threads", json={})).status_code == 401
