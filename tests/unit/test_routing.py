"""Requests are read strictly and refused in the protocol's shape, before any route runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import Header, Query, Request
from pydantic import Field
from starlette.responses import Response

from asgi import client_of, detail, post_raw
from waystation.api.cors import Cors, CorsRules
from waystation.api.dependencies import RequestBody, ThreadId, json_response, no_content
from waystation.api.frame import Application, request_id_of
from waystation.api.routing import Operation, Router
from waystation.errors import NotFound, TooManyRequests
from waystation_db.errors import DatabaseUnavailable

pytestmark = pytest.mark.anyio

THREAD = "01a1fd03-950f-711e-82ff-f4955799bb3e"


class Body(RequestBody):
    limit: Annotated[int, Field(ge=1, le=1000)] = 10
    metadata: dict[str, Any] = Field(default_factory=dict)
    anything: Any = None
    modes: Literal["values", "updates"] | list[Literal["values", "updates"]] = "values"


router = Router(tags=["Test"])


@router.post("/echo")
async def echo(body: Body) -> Response:
    return json_response({"limit": body.limit, "metadata": body.metadata, "anything": body.anything})


@router.get("/threads/{thread_id}")
async def thread(thread_id: ThreadId) -> Response:
    return json_response(thread_id)


@router.post("/threads/search")
async def search() -> Response:
    return json_response("search")


@router.delete("/threads/{thread_id}")
async def delete(thread_id: ThreadId) -> Response:
    return no_content()


@router.get("/query")
async def query(
    request: Request,
    name: str | None = None,
    select: Annotated[list[str] | None, Query()] = None,
    limit: Annotated[int, Query(ge=0)] = 10,
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    return json_response({"name": name, "select": select, "limit": limit, "last": last, "id": request_id_of(request)})


@router.get("/fail/{how}")
async def fail(how: str) -> Response:
    match how:
        case "known":
            raise NotFound("No such thing")
        case "grouped":
            raise ExceptionGroup("tasks", [NotFound("No such thing")])
        case "busy":
            raise TooManyRequests("Later", headers={"Retry-After": "3"})
        case "database":
            raise DatabaseUnavailable("secret address")
        case _:
            raise RuntimeError("secret")


def application() -> Application:
    @asynccontextmanager
    async def lifespan(_app: Application) -> AsyncGenerator[None]:
        yield

    app = Application([r for r in router.routes if isinstance(r, Operation)], lifespan=lifespan)
    app.state.services = SimpleNamespace(settings=SimpleNamespace(max_body_bytes=2000))
    return app


@pytest.fixture
def app() -> Application:
    return application()


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{not json",
        b'{"anything": NaN}',
        b'{"anything": Infinity}',
        b'{"anything": 1e999}',
        b'{"anything": "\\ud800"}',
        b'{"anything": "\xff\xfe"}',
        b'\xef\xbb\xbf{"limit": 1}',
        b"[" * 100_000,
        b'{"a": 1} trailing',
    ],
)
async def test_what_is_no_strict_json_is_refused(app: Application, client: httpx.AsyncClient, body: bytes) -> None:
    app.state.services.settings.max_body_bytes = 1_000_000
    response = await post_raw(client, "/echo", body)
    assert response.status_code == 422
    assert detail(response) == "Invalid JSON in request body"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"limit": 0}', "body.limit"),
        (b'{"limit": 1001}', "body.limit"),
        (b'{"limit": "10"}', "body.limit"),
        (b'{"limit": true}', "body.limit"),
        (b'{"limit": null}', "body.limit"),
        (b'{"limit": 123456789012345678901234567890}', "body.limit"),
        (b'{"metadata": null}', "body.metadata"),
        (b'{"metadata": []}', "body.metadata"),
        (b'{"modes": "x"}', "body.modes"),
        (b'{"modes": ["values", "x"]}', "body.modes"),
        (b"[1]", "body"),
        (b"1", "body"),
        (b"null", "body"),
    ],
)
async def test_a_wrong_value_is_refused_with_the_name_of_its_field(
    client: httpx.AsyncClient, body: bytes, field: str
) -> None:
    response = await post_raw(client, "/echo", body)
    assert response.status_code == 422
    assert detail(response).startswith(field + ": ")


async def test_an_error_never_repeats_the_value(client: httpx.AsyncClient) -> None:
    response = await post_raw(client, "/echo", b'{"limit": "s3cret"}')
    assert "s3cret" not in response.text


async def test_a_body_needs_no_content_type(client: httpx.AsyncClient) -> None:
    assert (await post_raw(client, "/echo", b'{"limit": 5}')).json()["limit"] == 5
    strange = await post_raw(client, "/echo", b'{"limit": 6}', headers={"content-type": "text/plain"})
    assert strange.json()["limit"] == 6


async def test_unknown_members_are_ignored(client: httpx.AsyncClient) -> None:
    assert (await post_raw(client, "/echo", b'{"bogus": 1}')).status_code == 200


async def test_integers_beyond_64_bits_are_taken_where_anything_is(client: httpx.AsyncClient) -> None:
    response = await post_raw(client, "/echo", b'{"anything": [123456789012345678901234567890, -9223372036854775808]}')
    assert response.status_code == 200


async def test_nul_is_replaced_in_strings_and_keys_at_any_depth(client: httpx.AsyncClient) -> None:
    body = b'{"metadata": {"a\\u0000b": [{"c": "x\\u0000"}]}, "anything": "\\\\u0000"}'
    answer = (await post_raw(client, "/echo", body)).json()
    assert answer["metadata"] == {"a\ufffdb": [{"c": "x\ufffd"}]}
    assert answer["anything"] == "\\u0000"


async def test_nesting_is_limited(client: httpx.AsyncClient) -> None:
    def nested(levels: int) -> bytes:
        return b'{"anything": ' + b"[" * levels + b"]" * levels + b"}"

    assert (await post_raw(client, "/echo", nested(199))).status_code == 200
    response = await post_raw(client, "/echo", nested(201))
    assert response.status_code == 422
    assert "200 levels" in detail(response)
    wide = b'{"anything": [' + b",".join([b"[]"] * 300) + b"]}"
    assert (await post_raw(client, "/echo", wide)).status_code == 200


async def test_a_body_over_the_limit_is_413_announced_or_not(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    announced = await post_raw(client, "/echo", b" " * 2001)
    assert announced.status_code == 413
    assert "2000 bytes" in detail(announced)
    assert (await client.post("/echo", content=chunks())).status_code == 413


async def test_ids_are_checked_and_made_canonical(client: httpx.AsyncClient) -> None:
    wrong = await client.get("/threads/nobody")
    assert (wrong.status_code, detail(wrong)) == (422, "Invalid thread ID: must be a UUID")
    assert (await client.get(f"/threads/{THREAD.upper()}")).json() == THREAD


async def test_the_more_literal_path_wins_with_the_methods_that_it_has(client: httpx.AsyncClient) -> None:
    assert (await client.post("/threads/search")).json() == "search"
    response = await client.get("/threads/search")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_unknown_path_and_method(client: httpx.AsyncClient) -> None:
    for path in ("/nope", "/echo/", "/threads/", f"/threads/{THREAD}/", f"/threads/{THREAD}/nope", "//echo"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"}), path
    response = await client.post(f"/threads/{THREAD}")
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
    assert response.headers["allow"] == "DELETE, GET"


async def test_queries_and_headers_are_read(client: httpx.AsyncClient) -> None:
    plain = (await client.get("/query")).json()
    assert (plain["name"], plain["select"], plain["limit"], plain["last"]) == (None, None, 10, None)
    url = "/query?name=a%00b&select=x&select=y&limit=3"
    given = (await client.get(url, headers={"last-event-id": "7-1", "x-request-id": "mine"})).json()
    assert given == {"name": "a\ufffdb", "select": ["x", "y"], "limit": 3, "last": "7-1", "id": "mine"}
    long = (await client.get("/query", headers={"x-request-id": "x" * 5000})).json()
    assert long["id"] == "x" * 200
    response = await client.get("/query?limit=many")
    assert response.status_code == 422
    assert detail(response).startswith("query.limit: ")


async def test_every_error_has_its_status_and_shape(client: httpx.AsyncClient) -> None:
    for how in ("known", "grouped"):
        response = await client.get(f"/fail/{how}")
        assert (response.status_code, detail(response)) == (404, "No such thing")
    busy = await client.get("/fail/busy")
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "3")
    away = await client.get("/fail/database")
    assert (away.status_code, away.headers["retry-after"]) == (503, "2")
    assert "secret" not in away.text


async def test_an_unexpected_failure_is_a_plain_500(client: httpx.AsyncClient) -> None:
    response = await client.get("/fail/unexpected")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert response.headers["content-type"].startswith("text/plain")


async def test_every_answer_varies_by_origin(client: httpx.AsyncClient) -> None:
    for path in ("/query", "/nope", "/fail/unexpected", "/threads/nobody"):
        assert (await client.get(path)).headers["vary"] == "Origin"


async def test_a_page_of_any_origin_may_call_by_default(client: httpx.AsyncClient) -> None:
    origin = {"origin": "http://localhost:3000"}
    headers = (await client.get("/query", headers=origin)).headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-expose-headers"] == "x-pagination-total, x-pagination-next, content-location"
    asks = {
        **origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }
    response = await client.options("/echo", headers=asks)
    assert response.status_code == 200
    assert response.headers["access-control-allow-headers"] == "content-type,x-api-key"
    assert response.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY"
    assert response.headers["access-control-max-age"] == "600"


async def test_a_cors_block_allows_only_what_it_lists(app: Application, client: httpx.AsyncClient) -> None:
    app.cors = Cors(
        CorsRules(
            allow_origins=("https://app.example",),
            allow_methods=("GET",),
            allow_headers=(),
            expose_headers=("x-pagination-total",),
        )
    )
    good, evil = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
    assert (await client.get("/query", headers=good)).headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in (await client.get("/query", headers=evil)).headers
    asks = {"access-control-request-method": "POST"}
    refused = await client.options("/echo", headers={**good, **asks})
    assert (refused.status_code, refused.text) == (400, "Disallowed CORS method")
    refused = await client.options("/echo", headers={**evil, **asks})
    assert (refused.status_code, refused.text) == (400, "Disallowed CORS origin, method")


async def test_below_a_prefix_everything_moves_but_ok(app: Application, client: httpx.AsyncClient) -> None:
    app.prefix = "/api"
    assert (await client.get("/api/query")).status_code == 200
    assert (await client.get("/query")).status_code == 404
    assert (await client.get("/apiquery")).status_code == 404


def test_the_document_names_bodies_parameters_and_errors() -> None:
    document = application().document
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/threads/{thread_id}"]["get"]
    assert operation["parameters"][0]["schema"]["format"] == "uuid"
    assert operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorDetail")
    body = document["paths"]["/echo"]["post"]["requestBody"]
    assert body["required"] is True
    assert body["content"]["application/json"]["schema"]["$ref"].endswith("/Body")
