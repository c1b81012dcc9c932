"""Creating a run twice with the same Idempotency-Key gives one run."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from eventually import eventually, run_becomes
from live_server import Client

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"assistant_id": "steps", "input": {"n": 0}}


def fresh_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


async def test_the_same_key_gives_the_same_run(sdk: Client, http: httpx.AsyncClient, thread_id: str) -> None:
    key = fresh_key()
    first = await http.post(f"/threads/{thread_id}/runs", json=BODY, headers=key)
    again = await http.post(f"/threads/{thread_id}/runs", json=BODY, headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["run_id"] == first.json()["run_id"]
    await run_becomes(sdk, first.json(), "success")
    late = await http.post(f"/threads/{thread_id}/runs", json=BODY, headers=key)
    assert late.json()["run_id"] == first.json()["run_id"]
    assert len(await sdk.runs.list(thread_id)) == 1
    assert (await sdk.threads.get_state(thread_id))["values"]["log"] == ["a", "b"]


async def test_concurrent_requests_with_one_key_make_one_run(
    sdk: Client, http: httpx.AsyncClient, thread_id: str
) -> None:
    key = fresh_key()
    answers = await asyncio.gather(
        *(http.post(f"/threads/{thread_id}/runs", json=BODY, headers=key) for _ in range(12))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(await sdk.runs.list(thread_id)) == 1


async def test_a_key_belongs_to_its_request(sdk: Client, http: httpx.AsyncClient, thread_id: str) -> None:
    key = fresh_key()
    await http.post(f"/threads/{thread_id}/runs", json=BODY, headers=key)
    other = await http.post(f"/threads/{thread_id}/runs", json={**BODY, "input": {"n": 1}}, headers=key)
    assert (other.status_code, "Idempotency-Key" in other.json()["detail"]) == (409, True)
    elsewhere = (await sdk.threads.create())["thread_id"]
    assert (await http.post(f"/threads/{elsewhere}/runs", json=BODY, headers=key)).status_code == 409
    assert await sdk.runs.list(elsewhere) == []


@pytest.mark.parametrize("operation", ["wait", "stream"])
async def test_a_repeated_wait_or_stream_follows_the_run_there_is(
    sdk: Client, http: httpx.AsyncClient, thread_id: str, operation: str
) -> None:
    key = fresh_key()
    path = f"/threads/{thread_id}/runs/{operation}"
    first, again = await asyncio.gather(*(http.post(path, json=BODY, headers=key) for _ in range(2)))
    assert first.headers["location"] == again.headers["location"]
    late = await http.post(path, json=BODY, headers=key)
    assert late.headers["location"] == first.headers["location"]
    if operation == "wait":
        assert first.json() == again.json() == late.json() == {"log": ["a", "b"], "n": 2}
    assert len(await sdk.runs.list(thread_id)) == 1


async def test_a_refused_request_does_not_use_up_its_key(sdk: Client, http: httpx.AsyncClient, thread_id: str) -> None:
    key = fresh_key()
    blocker = await sdk.runs.create(thread_id, "slow", input={"n": 200, "delay": 0.05})
    body = {**BODY, "multitask_strategy": "reject"}
    assert (await http.post(f"/threads/{thread_id}/runs", json=body, headers=key)).status_code == 409
    await sdk.runs.cancel(thread_id, blocker["run_id"], wait=True)
    assert (await http.post(f"/threads/{thread_id}/runs", json=body, headers=key)).status_code == 200


@pytest.mark.parametrize("on_completion", ["keep", "delete"])
async def test_stateless_runs_have_keys_too(sdk: Client, http: httpx.AsyncClient, on_completion: str) -> None:
    key = fresh_key()
    body = {"assistant_id": "slow", "input": {"n": 8, "delay": 0.05}, "on_completion": on_completion}
    first, again = await asyncio.gather(*(http.post("/runs", json=body, headers=key) for _ in range(2)))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["run_id"] == again.json()["run_id"]
    run = first.json()

    async def is_over() -> bool:
        answer = await http.get(f"/threads/{run['thread_id']}/runs/{run['run_id']}")
        return answer.status_code == 404 or answer.json()["status"] == "success"

    await eventually(is_over)


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\x7f", b"\xff"])
async def test_an_unusable_key_is_refused_or_serves(http: httpx.AsyncClient, thread_id: str, key: bytes) -> None:
    answer = await http.post(f"/threads/{thread_id}/runs", json=BODY, headers={b"Idempotency-Key": key})
    assert answer.status_code in (200, 400, 422)
    if len(key) > 255:
        assert "Idempotency-Key" in answer.json()["detail"]
