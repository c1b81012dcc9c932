"""No path, query, header, method or byte that a client can send gives a 5xx or a hang."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from e2e.bad_input import Battery, battery_on, said
from e2e.operations import EVERY, WITH_BODY, Described
from live_server import LiveServer

pytestmark = pytest.mark.anyio

each_operation = pytest.mark.parametrize("operation", EVERY, ids=str)

IDS = [
    *("..", ".", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2F", "%5c", "%00", "%0d%0aset-cookie:%20a=b", "%ff%fe"),
    *(
        "%F0%9F%92%A9",
        "%ED%A0%80",
        "null",
        "undefined",
        "0",
        "-1",
        "1e5",
        "{}",
        "[]",
        "*",
        "%25s",
        "%",
        "%zz",
        "+",
        "~",
    ),
    *("1%27%20or%20%271%27=%271", "%27;drop%20table%20run;--", "a" * 5000, "%C0%AE%C0%AE", "search", "steps%00"),
    *("01a1fd03-950f-711e-82ff-f4955799bb3", "01a1fd03-950f-711e-82ff-f4955799bb3eg", "01a1fd03-950f-711e-82ff"),
]

QUERIES = [
    *("", "-1", "0", "1.5", "99999999999999999999999999", "1e400", "NaN", "true", "null", "[]", "{}", "\x00", "a\x00b"),
    *("'; drop table thread; --", "../..", "%s", "\u202e\uffff\U0001f4a9", "x" * 20_000, "values,,updates", ",", "*"),
]


@pytest.fixture
async def battery(http: httpx.AsyncClient) -> AsyncGenerator[Battery]:
    async with battery_on(http) as made:
        yield made


@each_operation
async def test_an_id_that_is_none_is_refused(battery: Battery, operation: Described) -> None:
    body = {} if operation.body is None else {"json": battery.things.body_of(operation)}
    for name, text in itertools.product(operation.of("path"), IDS):
        path = battery.things.path_of(operation, **{name: text})
        answer = await battery.ask(operation.method, "/", target=path, what=path[:200], **body)
        loose = name in ("checkpoint_id", "namespace")  # anything may be asked for; nothing is found
        assert loose or 400 <= answer.status_code < 500, (path, answer.status_code, answer.text)


@each_operation
async def test_an_id_of_nothing_finds_nothing(battery: Battery, operation: Described) -> None:
    body = {} if operation.body is None else {"json": battery.things.body_of(operation)}
    unknown = str(uuid.uuid4())
    for name in operation.of("path"):
        path = battery.things.path_of(operation, **{name: unknown})
        answer = await battery.ask(operation.method, path, what=path, **body)
        if answer.status_code == 200 and path.endswith(("/join", "/stream")):
            assert "404: Run not found" in answer.text
        elif name not in ("checkpoint_id", "namespace"):
            assert answer.status_code in (404, 409), (path, answer.status_code, answer.text)


@each_operation
async def test_garbage_in_the_query_is_ignored_or_refused(battery: Battery, operation: Described) -> None:
    if operation.method == "DELETE":
        return
    path = battery.things.path_of(operation)
    body = {} if operation.body is None else {"json": battery.things.body_of(operation)}
    for name, text in itertools.product(operation.of("query"), QUERIES):
        answer = await battery.ask(operation.method, f"{path}?{name}={quote(text)}", what=(name, text[:50]), **body)
        if answer.status_code == 422 or (answer.status_code == 400 and "/v1/" in path):
            # An item's namespace is needed beside whatever else is asked for, and the protocol's text does not name it.
            assert name in said(answer) or said(answer).startswith("Namespace label ''"), answer.text
    for raw in ("%", "%zz=%zz", "&&&==&", "a" * 30_000, "limit[]=1", "%00=%00", "\xff", "&".join(["limit=1"] * 2000)):
        await battery.ask(operation.method, f"{path}?{quote(raw, safe='%&=[]')}", what=raw[:50], **body)
    for name in operation.of("query"):
        await battery.ask(operation.method, f"{path}?{name}=1&{name}=x&{name}=1", what=name, **body)


async def test_limits_and_offsets_at_their_ends(battery: Battery) -> None:
    thread = f"/threads/{battery.things.thread_id}"
    for path in (f"{thread}/runs", f"{thread}/history"):
        for limit in ("0", "1001", "1000000"):
            answer = await battery.ask("GET", f"{path}?limit={limit}")
            assert answer.status_code == 200
        for query in ("limit=-1", "limit=many", "offset=-1" if path.endswith("runs") else "limit=1e3"):
            answer = await battery.ask("GET", f"{path}?{query}")
            battery.refused(answer, naming=(query.split("=")[0],))
    assert await battery.json("GET", f"{thread}/runs?offset=2000000000") == []
    for path in ("/threads/search", "/assistants/search", "/runs/crons/search"):
        assert await battery.json("POST", path, {"offset": 2**31 - 1}) == []
        for body in ({"limit": 0}, {"limit": 1001}, {"limit": 2**70}, {"offset": -1}, {"offset": 2**70}):
            battery.refused(await battery.ask("POST", path, json=body), naming=tuple(body))


@pytest.mark.parametrize("last", ["garbage", "1", "1-", "-", "--", "9" * 39, f"{2**63}-{2**63}", "-1-1", "1-2-3", ""])
@pytest.mark.parametrize("resumable", [True, False])
async def test_a_malformed_last_event_id_counts_as_none(battery: Battery, last: str, resumable: bool) -> None:
    path = f"/threads/{battery.things.thread_id}/runs"
    body = {"assistant_id": "steps", "input": {"n": 0}, "stream_resumable": resumable}
    run = (await battery.ask("POST", f"{path}/stream", json=body)).headers["content-location"]
    answer = await battery.ask("GET", f"{run}/stream", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.text) == (200, "")


HEADERS: list[dict[bytes, bytes]] = [
    {b"x-request-id": b"\xff\xfe\x80"},
    {b"x-request-id": b"r" * 30_000},
    {b"x-request-id": b"'; drop table run; --"},
    {b"idempotency-key": b"\xff" * 255},
    {b"idempotency-key": b"k" * 30_000},
    {b"last-event-id": b"\xff"},
    {b"transfer-encoding": b"gzip"},
    {b"content-encoding": b"gzip"},
    {b"accept": b"nothing/at-all"},
    {b"accept-encoding": b"br;q=NaN"},
    {b"host": b"elsewhere.example:99999"},
    {b"host": b""},
    {b"origin": b"null"},
    {b"origin": b"\xff\xfe://x"},
    {b"range": b"bytes=0-1"},
    {b"authorization": b"Bearer \xff"},
    {b"cookie": b"a" * 20_000},
    {b"forwarded": b"for=';drop'"},
    {b"x-forwarded-for": b"1.2.3.4, not-an-ip, ::::"},
    {b"x-forwarded-proto": b"gopher"},
    {b"expect": b"200-maybe"},
    {b"connection": b"upgrade", b"upgrade": b"h2c"},
    {b"x-" + b"n" * 20_000: b"v"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: str(next(iter(headers)))[:30])
async def test_no_header_is_too_much(battery: Battery, headers: dict[bytes, bytes]) -> None:
    for method, path, body in (
        ("GET", "/ok", b""),
        ("POST", "/threads/search", b"{}"),
        ("POST", "/runs/wait", b'{"assistant_id": "steps", "input": {"n": 0}}'),
    ):
        given = {b"content-type": b"application/json", b"content-length": str(len(body)).encode(), **headers}
        try:
            async with asyncio.timeout(60):
                answer = await battery.http.request(method, path, headers=given, content=body)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.LocalProtocolError, TimeoutError):
            continue  # broken framing: the connection is closed, or the rest of the body awaited
        assert answer.status_code < 500, (path, answer.text)


async def test_any_content_type_is_read_as_json(battery: Battery) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "a/b/c;;"):
        answer = await battery.ask("POST", "/threads/count", content=b"{}", headers={"content-type": kind})
        assert answer.status_code in (200, 415, 422), kind
    for operation in WITH_BODY:
        form = b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--"
        headers = {"content-type": "multipart/form-data; boundary=x"}
        battery.refused(await battery.send(operation, content=form, headers=headers), what=operation)


@each_operation
async def test_other_methods_are_not_allowed(battery: Battery, operation: Described) -> None:
    path = battery.things.path_of(operation)
    there = {other.method for other in EVERY if other.path == operation.path} | {"HEAD"}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "OPTIONS"):
        if method in there:
            continue
        answer = await battery.ask(method, path, content=b"{}")
        assert answer.status_code == 405, (method, path, answer.status_code)
        assert set(answer.headers["allow"].split(", ")) <= there
    for target in (path + "/", "/" + path, path + "//", path.replace("/", "//"), path + "/..", path + ";x"):
        answer = await battery.ask("POST", "/", target=target, content=b"{}")
        assert answer.status_code in (404, 405, 422), target


RAW = [
    b"\r\n\r\n",
    b"\x00" * 100 + b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /threads/\xc3\x28 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
    b"POST /threads HTTP/1.1\r\nhost: x\r\na: b\x00c\r\n\r\n",
    b"GET /ok HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:24]))
async def test_bytes_that_are_no_request_cost_their_sender_the_connection(
    battery: Battery, live_server: LiveServer, raw: bytes
) -> None:
    host, port = live_server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw)
        writer.write_eof()
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert b" 50" not in answer[:20], answer[:200]
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert (await battery.ask("GET", "/ok")).status_code == 200


async def test_a_websocket_where_there_is_none_is_declined(battery: Battery) -> None:
    headers: dict[str, Any] = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with asyncio.timeout(60):
        answer = await battery.http.get(f"/threads/{battery.things.thread_id}/stream", headers=headers)
    assert 400 <= answer.status_code < 500
