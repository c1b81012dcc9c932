"""Assistants over HTTP, on Postgres: as the platform's clients know them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid5

import httpx
import pytest

from api_services import api_services
from asgi import client_of, detail
from waystation.app import attach, create_app
from waystation.runs.assistants import ensure_default_assistants
from waystation.services import Services

pytestmark = pytest.mark.anyio

NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
NOBODY = "00000000-0000-0000-0000-000000000000"


def default_id(graph_id: str) -> str:
    return str(uuid5(NAMESPACE, graph_id))


@pytest.fixture
async def services(database_uri: str) -> AsyncIterator[Services]:
    async with api_services(database_uri) as services:
        await ensure_default_assistants(services)
        yield services


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(lambda: pytest.fail("the lifespan is not run here"))
    attach(app, services)
    async with client_of(app) as client:
        yield client


async def create(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/assistants", json={"graph_id": "echo", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_every_graph_has_an_assistant_from_the_start(client: httpx.AsyncClient, services: Services) -> None:
    found = (await client.get(f"/assistants/{default_id('agent')}")).json()
    times = {key: found.pop(key) for key in ("created_at", "updated_at")}
    assert found == {
        "assistant_id": "fe096781-5601-53d2-b2f6-0d3403f7e9ca",
        "graph_id": "agent",
        "config": {},
        "context": {},
        "metadata": {"created_by": "system"},
        "name": "agent",
        "version": 1,
        "description": "Adds numbers with a tool",
    }
    assert len(times["created_at"]) == len("2026-11-21T07:24:50.929083+00:00")
    assert (await client.post("/assistants/count", json={})).json() == len(services.project.graphs)


async def test_a_restart_changes_nothing_and_brings_deleted_defaults_back(
    client: httpx.AsyncClient, services: Services
) -> None:
    echo, fan = default_id("echo"), default_id("fan")
    await client.patch(f"/assistants/{echo}", json={"name": "mine"})
    assert (await client.delete(f"/assistants/{fan}")).status_code == 204
    await ensure_default_assistants(services)
    assert (await client.get(f"/assistants/{echo}")).json()["name"] == "mine"
    assert (await client.get(f"/assistants/{fan}")).status_code == 200


async def test_a_created_assistant_shows_config_and_context_alike(client: httpx.AsyncClient) -> None:
    made = await create(
        client,
        name="My Echo",
        description="d1",
        metadata={"team": "red"},
        config={"tags": ["t1"], "recursion_limit": 11, "configurable": {"k": "v"}},
    )
    assert made["config"] == {"tags": ["t1"], "recursion_limit": 11, "configurable": {"k": "v"}}
    assert made["context"] == {"k": "v"}
    assert UUID(made["assistant_id"]).version == 4
    by_context = await create(client, context={"model_name": "m"})
    assert by_context["config"] == {"configurable": {"model_name": "m"}}
    assert by_context["context"] == {"model_name": "m"}
    minimal = await create(client)
    assert (minimal["name"], minimal["config"], minimal["context"], minimal["metadata"]) == ("Untitled", {}, {}, {})


async def test_an_id_is_taken_once(client: httpx.AsyncClient) -> None:
    made = await create(client, name="first")
    again = {"graph_id": "chat", "assistant_id": made["assistant_id"]}
    refused = await client.post("/assistants", json=again)
    assert (refused.status_code, detail(refused)) == (409, f"Assistant {made['assistant_id']} already exists")
    kept = await client.post("/assistants", json={**again, "if_exists": "do_nothing"})
    assert (kept.status_code, kept.json()) == (200, made)


async def test_wrong_creations_say_what_is_wrong(client: httpx.AsyncClient) -> None:
    async def refused(body: dict[str, Any]) -> tuple[int, str]:
        response = await client.post("/assistants", json=body)
        return response.status_code, detail(response)

    status, text = await refused({"graph_id": "nobody"})
    assert status == 404
    assert text.startswith("Graph 'nobody' not found. Expected one of: ['agent', 'agent_all',")
    both = {"graph_id": "echo", "context": {"a": 1}, "config": {"configurable": {"a": 2}}}
    assert (await refused(both))[0] == 400
    assert await refused({"graph_id": "echo", "assistant_id": "x"}) == (
        422,
        "body.assistant_id: Invalid assistant ID: must be a UUID",
    )
    for member, value in [("metadata", None), ("config", None), ("name", None), ("name", 1), ("if_exists", "maybe")]:
        status, text = await refused({"graph_id": "echo", member: value})
        assert status == 422
        assert text.startswith(f"body.{member}: ")
    assert (await refused({}))[1].startswith("body.graph_id: ")


async def test_unknown_and_malformed_ids(client: httpx.AsyncClient) -> None:
    for method, path, text in [
        ("GET", f"/assistants/{NOBODY}", "Not Found"),
        ("GET", f"/assistants/{NOBODY}/graph", "Not Found"),
        ("GET", f"/assistants/{NOBODY}/schemas", "Not Found"),
        ("PATCH", f"/assistants/{NOBODY}", f"Assistant {NOBODY} not found"),
        ("DELETE", f"/assistants/{NOBODY}", f"Assistant with ID {NOBODY} not found"),
        ("POST", f"/assistants/{NOBODY}/versions", f"Assistant {NOBODY} not found"),
    ]:
        response = await client.request(method, path, json={})
        assert (response.status_code, detail(response)) == (404, text), path
    for path in ("/assistants/agent", "/assistants/agent/schemas", "/assistants/agent/subgraphs"):
        response = await client.get(path)
        assert (response.status_code, detail(response)) == (422, "Invalid assistant ID: must be a UUID"), path


async def test_a_patch_merges_metadata_replaces_the_rest_and_is_a_version(client: httpx.AsyncClient) -> None:
    made = await create(client, metadata={"team": "red"}, config={"tags": ["t"], "configurable": {"k": 1}})
    path = f"/assistants/{made['assistant_id']}"
    named = (await client.patch(path, json={"name": "Renamed", "metadata": {"extra": 1}})).json()
    assert (named["version"], named["name"], named["metadata"]) == (2, "Renamed", {"team": "red", "extra": 1})
    assert named["config"] == made["config"]
    assert named["updated_at"] > made["updated_at"]
    replaced = (await client.patch(path, json={"config": {"configurable": {"k2": 2}}})).json()
    assert (replaced["version"], replaced["config"]) == (3, {"configurable": {"k2": 2}})
    assert replaced["context"] == {"k2": 2}
    context = (await client.patch(path, json={"context": {"m": 3}})).json()
    assert (context["config"], context["context"]) == ({"configurable": {"m": 3}}, {"m": 3})
    assert (await client.patch(path, json={})).json()["version"] == 5


async def test_versions_are_listed_and_can_be_gone_back_to(client: httpx.AsyncClient) -> None:
    made = await create(client, name="one", metadata={"v": 1}, context={"c": 1})
    path = f"/assistants/{made['assistant_id']}"
    await client.patch(path, json={"name": "two", "graph_id": "chat", "context": {"c": 2}, "metadata": {"w": 2}})
    listed = (await client.post(f"{path}/versions", json={})).json()
    assert [(v["version"], v["name"], v["graph_id"]) for v in listed] == [(2, "two", "chat"), (1, "one", "echo")]
    assert "updated_at" not in listed[0]
    assert [v["version"] for v in (await client.post(f"{path}/versions", json={"limit": 1, "offset": 1})).json()] == [1]
    filtered = (await client.post(f"{path}/versions", json={"metadata": {"w": 2}})).json()
    assert [v["version"] for v in filtered] == [2]
    back = (await client.post(f"{path}/latest", json={"version": 1})).json()
    assert {key: back[key] for key in ("graph_id", "name", "context", "config", "metadata", "version")} == {
        "graph_id": "echo",
        "name": "one",
        "context": {"c": 1},
        "config": {"configurable": {"c": 1}},
        "metadata": {"v": 1},
        "version": 1,
    }
    unknown = await client.post(f"{path}/latest", json={"version": 99})
    assert detail(unknown) == f"Version 99 not found for assistant {made['assistant_id']}"
    assert detail(await client.post(f"{path}/latest", json={})) == "body.version: Field required"
    assert (await client.patch(path, json={"name": "three"})).json()["version"] == 3


async def test_concurrent_patches_are_numbered_one_after_the_other(client: httpx.AsyncClient) -> None:
    made = await create(client)
    path = f"/assistants/{made['assistant_id']}"
    answers = await asyncio.gather(*(client.patch(path, json={"metadata": {str(i): i}}) for i in range(8)))
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 10))
    assert len((await client.get(path)).json()["metadata"]) == 8


async def test_search_pages_without_gaps(client: httpx.AsyncClient) -> None:
    for i in range(5):
        await create(client, name=f"n{i}", metadata={"t": 1})
    names: list[str] = []
    offset: int | None = 0
    while offset is not None:
        body = {"metadata": {"t": 1}, "limit": 2, "offset": offset, "select": ["name"]}
        response = await client.post("/assistants/search", json=body)
        names += [item["name"] for item in response.json()]
        more = "x-pagination-next" in response.headers
        assert int(response.headers["x-pagination-total"]) == len(names) + more
        offset = int(response.headers["x-pagination-next"]) if more else None
    assert names == ["n4", "n3", "n2", "n1", "n0"]
    past = await client.post("/assistants/search", json={"limit": 2, "offset": 2000})
    assert (past.json(), past.headers["x-pagination-total"]) == ([], "2000")


async def test_search_filters_sorts_and_selects(client: httpx.AsyncClient) -> None:
    for name in ("banana", "Apple", "cherry 100%"):
        await create(client, name=name, metadata={"fruit": {"sweet": True}})

    async def names(**body: Any) -> list[str]:
        where = {"metadata": {"fruit": {"sweet": True}}, "select": ["name"], **body}
        response = await client.post("/assistants/search", json=where)
        assert response.status_code == 200, response.text
        return [item["name"] for item in response.json()]

    assert await names(sort_by="name", sort_order="asc") == ["Apple", "banana", "cherry 100%"]
    assert await names(sort_by="name") == ["cherry 100%", "banana", "Apple"]
    assert await names(sort_by="created_at", sort_order="asc") == ["banana", "Apple", "cherry 100%"]
    assert await names(name="AN") == ["banana"]
    assert await names(name="%") == ["cherry 100%"]
    assert await names(graph_id="chat") == []
    assert await names(metadata={"fruit": {"sweet": False}}) == []
    assert len(await names(select=[], limit=3.0)) == 3
    for wrong in ({"sort_by": "colour"}, {"select": ["colour"]}, {"limit": 0}, {"limit": 1001}, {"offset": -1}):
        response = await client.post("/assistants/search", json=wrong)
        assert response.status_code == 422
        assert detail(response).startswith(f"body.{next(iter(wrong))}")


async def test_a_graph_is_drawn_by_name_or_id_and_with_its_subgraphs(client: httpx.AsyncClient) -> None:
    plain = (await client.get("/assistants/nested/graph")).json()
    assert plain == (await client.get(f"/assistants/{default_id('nested')}/graph")).json()
    assert plain["nodes"][0] == {"id": "__start__", "type": "runnable", "data": {"name": "__start__"}}
    assert {"id": "__end__"} in plain["nodes"]
    assert (await client.get("/assistants/nested/graph?xray=false")).json() == plain

    async def ids(xray: str) -> set[str]:
        return {node["id"] for node in (await client.get(f"/assistants/nested/graph?xray={xray}")).json()["nodes"]}

    assert "child:grandchild:inner_model" in await ids("true")
    assert "child:grandchild" in await ids("1")
    for wrong in ("0", "many", "-1", "²"):
        response = await client.get("/assistants/nested/graph", params={"xray": wrong})
        assert (response.status_code, detail(response)) == (422, "Invalid xray value"), wrong


async def test_schemas_of_graph_and_subgraphs(client: httpx.AsyncClient) -> None:
    nested = default_id("nested")
    schemas = (await client.get(f"/assistants/{default_id('chat')}/schemas")).json()
    names = {"input_schema", "output_schema", "state_schema", "config_schema", "context_schema"}
    assert set(schemas) == {"graph_id", *names}
    assert schemas["graph_id"] == "chat"
    assert "messages" in schemas["state_schema"]["properties"]
    direct = (await client.get(f"/assistants/{nested}/subgraphs")).json()
    assert set(direct) == {"child"}
    assert set(direct["child"]) == names
    assert set((await client.get(f"/assistants/{nested}/subgraphs?recurse=true")).json()) == {
        "child",
        "child|grandchild",
    }
    deep = (await client.get(f"/assistants/{nested}/subgraphs/child%7Cgrandchild?recurse=true")).json()
    assert set(deep) == {"child|grandchild"}
    assert (await client.get(f"/assistants/{nested}/subgraphs/nobody")).json() == {}


async def test_every_graph_of_the_project_can_be_described(client: httpx.AsyncClient, services: Services) -> None:
    for graph_id in services.project.graphs:
        response = await client.get(f"/assistants/{default_id(graph_id)}/schemas")
        assert response.status_code == 200, (graph_id, response.text)


async def test_deleting_an_assistant_can_take_its_threads_along(client: httpx.AsyncClient, services: Services) -> None:
    made = await create(client)
    other = await create(client)
    mine, theirs = [str(UUID(int=i)) for i in (1, 2)]
    async with services.db.connection() as conn:
        for thread, assistant in ((mine, made), (theirs, other)):
            await conn.execute(
                "insert into thread (thread_id, metadata) values (%s, jsonb_build_object('assistant_id', %s::text))",
                (thread, assistant["assistant_id"]),
            )
    assert (await client.delete(f"/assistants/{made['assistant_id']}?delete_threads=true")).status_code == 204
    async with services.db.connection() as conn:
        left = await (await conn.execute("select thread_id::text from thread")).fetchall()
    assert left == [(theirs,)]
    assert (await client.get(f"/assistants/{made['assistant_id']}")).status_code == 404


async def test_nothing_in_a_string_breaks_storing(client: httpx.AsyncClient) -> None:
    made = await create(client, name="n\x00ul'; drop table assistant; --", metadata={"k\x00": "\x00", "big": 2**70})
    assert made["name"] == "n\ufffdul'; drop table assistant; --"
    assert made["metadata"]["k\ufffd"] == "\ufffd"
    found = await client.post("/assistants/search", json={"name": "drop table", "metadata": {"k\x00": "\x00"}})
    assert [item["assistant_id"] for item in found.json()] == [made["assistant_id"]]
