"""No body that a client can send gives a 5xx, a hang or a stuck run: what is wrong is refused by its name."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import orjson
import pytest

from e2e.bad_input import Battery, battery_on
from e2e.operations import WITH_BODY, Described, Path, allows, members, put

pytestmark = pytest.mark.anyio

each_operation = pytest.mark.parametrize("operation", WITH_BODY, ids=str)

KINDS: list[Any] = [None, True, 7, -1, 1.5, 10**40, "text", "", [], [1], {}, {"a": 1}]
"""A value of every JSON type, and some at the edges."""

TEXTS = [
    "\x00",
    "a\x00b",
    "\ufffe\uffff\U0010ffff",
    "\r\n\u2028\x1b[31m",
    "../../etc/passwd",
    "'; drop table run; --",
    "%s%n{0}${x}",
    "x" * 20_000,
]

BROKEN = {
    "empty": b"",
    "blank": b" \n",
    "cut off": b'{"a": [1, {"b"',
    "trailing": b"{} {}",
    "a word": b"undefined",
    "single quotes": b"{'a': 1}",
    "not a number": b'{"metadata": {"a": NaN}}',
    "infinity": b'{"metadata": {"a": -Infinity}}',
    "too large for a float": b'{"metadata": {"a": 1e400}}',
    "lone surrogate": b'{"metadata": {"a": "\\ud800"}}',
    "lone surrogate as a key": b'{"metadata": {"\\udfff": 1}}',
    "not UTF-8": b'{"metadata": {"a": "\xff\xfe"}}',
    "a surrogate in UTF-8": b'{"metadata": {"a": "\xed\xa0\x80"}}',
    "control character": b'{"metadata": {"a": "\x01"}}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"metadata": {}}'.encode("utf-16"),
    "zero byte": b"\x00",
    "ten thousand lists": b"[" * 10_000 + b"]" * 10_000,
    "ten thousand objects": b'{"metadata":' * 10_000 + b"1" + b"}" * 10_000,
    "ten thousand open lists": b"[" * 10_000,
    "deep inside a member": b'{"metadata": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
}


@pytest.fixture
async def battery(http: httpx.AsyncClient) -> AsyncGenerator[Battery]:
    async with battery_on(http) as made:
        yield made


@each_operation
async def test_a_member_of_the_wrong_type_is_refused_by_name(battery: Battery, operation: Described) -> None:
    base = battery.things.body_of(operation)

    async def try_one(at: Path, value: Any) -> None:
        body = put(base, at, value)
        fits = allows(operation, body)
        if fits and (operation.lasts or "after_seconds" in at):
            return  # that would be waited for
        answer = await battery.send(operation, json=body)
        if not fits:
            battery.refused(answer, naming=at)

    kinds = KINDS[::3] if operation.lasts else KINDS  # their bodies are those of the routes beside them
    await battery.each(try_one, ((at, value) for at, _ in members(operation) for value in kinds))


@each_operation
async def test_a_body_that_is_no_json_is_refused(battery: Battery, operation: Described) -> None:
    for what, body in BROKEN.items():
        answer = await battery.send(operation, content=body)
        battery.refused(answer, what=what)


@each_operation
async def test_a_body_of_another_shape_is_refused(battery: Battery, operation: Described) -> None:
    shapes: list[Any] = [None, True, 7, "text", [7], [[]], [{}], {"": 1}]
    for body in shapes:
        answer = await battery.send(operation, json=body)
        if not allows(operation, body):
            battery.refused(answer, what=body)


@each_operation
async def test_no_text_in_any_member_is_too_much(battery: Battery, operation: Described) -> None:
    base = battery.things.body_of(operation)

    async def try_one(at: Path, text: str) -> None:
        for value in (text, {text: [text]}):
            await battery.send(operation, json=put(base, at, value))

    if operation.lasts:
        return  # what is accepted would be waited for
    await battery.each(try_one, ((at, text) for at, _ in members(operation) for text in TEXTS))


@each_operation
async def test_numbers_of_any_size_are_taken_or_refused(battery: Battery, operation: Described) -> None:
    base = battery.things.body_of(operation)
    numbers = (2**31, -(2**31) - 1, 2**63, 2**64, -(10**400), 1e308, -0.0, 0)

    async def try_one(at: Path, number: float) -> None:
        if "after_seconds" not in at:
            text = json.dumps(put(base, at, number))
            await battery.send(operation, content=text.encode())

    if operation.lasts:
        return
    await battery.each(try_one, ((at, number) for at, _ in members(operation) for number in numbers))


@each_operation
async def test_a_body_that_is_too_large_is_refused(battery: Battery, operation: Described) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        for _ in range(400):
            yield b'["' + b"x" * 65_536 + b'"],'

    for content in (b'"' + b"x" * (21 * 2**20) + b'"', endless()):
        try:
            answer = await battery.send(operation, content=content)
        except httpx.WriteError:  # it closed the connection while this was still writing
            continue
        assert answer.status_code in (413, 422), answer.text


@each_operation
async def test_members_given_twice_unknown_ones_and_many_of_them(battery: Battery, operation: Described) -> None:
    base = orjson.dumps(battery.things.body_of(operation))
    opening, rest = (base[:2], base[2:]) if base.startswith(b"[") else (base[:1], base[1:])
    twice = opening + b'"metadata": 1, "metadata": {}' + (b"," if rest.strip(b"]}") else b"") + rest
    many = orjson.dumps({f"k{n}": {"a": n} for n in range(20_000)})
    wide = opening + b'"metadata": ' + many + (b"," if rest.strip(b"]}") else b"") + rest
    for body in (twice, wide):
        if not operation.lasts:
            await battery.send(operation, content=body)


async def test_what_a_filter_holds_is_data_and_no_sql(battery: Battery) -> None:
    hostile = [
        "a' or 1=1 --",
        "$ne",
        "$.a ? (1 == 1)",
        "a.b.c",
        "{a}",
        '"',
        "\\",
        "%",
        "a'::jsonb",
        "\x00",
        "->>",
        "?|",
    ]
    total = await battery.count()
    mark = uuid.uuid4().hex  # other tests have stored such keys
    for key in (text + mark for text in hostile):
        filters: list[dict[str, Any]] = [{"metadata": {key: key}}, {"values": {key: {key: [key, None, 1e300]}}}]
        for wanted in filters:
            assert await battery.json("POST", "/threads/search", {**wanted, "limit": 1000}) == [], key
            assert await battery.json("POST", "/threads/count", wanted) == 0, key
        assert await battery.json("POST", "/assistants/search", {"metadata": {key: key}}) == []
        assert await battery.json("POST", "/assistants/search", {"name": key}) == []
        await battery.json("POST", "/threads/search", {"extract": {key: "values.log[0]", key * 2: "metadata.a"}})
    assert await battery.count() == total


async def test_garbage_in_selections_and_orders_is_refused(battery: Battery) -> None:
    for value in ("", "thread_id; drop table thread", "*", "1", "thread_id,values", "metadata->>'a'", "ctid"):
        for body in ({"sort_by": value}, {"sort_order": value}, {"select": [value]}, {"status": value}):
            for path in ("/threads/search", "/assistants/search"):
                if path.startswith("/assistants") and "status" in body:
                    continue
                answer = await battery.http.post(path, json=body)
                battery.refused(answer, naming=tuple(body), what=body)
        answer = await battery.http.get(f"/threads/{battery.things.thread_id}/runs", params={"select": value})
        battery.refused(answer, naming=("select",), what=value)


async def test_a_refused_request_leaves_nothing_behind(battery: Battery) -> None:
    path = f"/threads/{battery.things.thread_id}/runs"
    before = await battery.json("GET", path + "?limit=1000")
    bodies: list[dict[str, Any]] = [
        {"assistant_id": "no such graph"},
        {"assistant_id": "00000000-0000-0000-0000-000000000000"},
        {"assistant_id": "steps", "webhook": "ftp://x"},
        {"assistant_id": "steps", "context": {"a": 1}, "config": {"configurable": {"b": 1}}},
        {"assistant_id": "steps", "after_seconds": 1e300},
    ]
    for body in bodies:
        battery.refused(await battery.http.post(path, json=body), what=body)
        battery.refused(await battery.http.post(path + "/wait", json=body), what=body)
        battery.refused(await battery.http.post(path + "/stream", json=body), what=body)
    assert await battery.json("GET", path + "?limit=1000") == before


async def test_a_sender_who_stops_in_the_middle_harms_nobody(battery: Battery) -> None:
    async def half() -> AsyncGenerator[bytes]:
        yield b'{"assistant_id": '
        await asyncio.Event().wait()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await battery.http.post("/runs/wait", content=half(), headers={"content-type": "application/json"})

    await asyncio.gather(*(give_up() for _ in range(20)))
