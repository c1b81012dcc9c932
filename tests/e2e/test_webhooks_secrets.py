"""Tenants with webhook secrets of their own, told by receivers that verify as docs/webhooks.md shows it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client

from e2e.authorized import new_key
from live_server import Client, live_server_on
from receivers import Received, fails_first, receiver
from waystation.config import Settings

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
GRAPHS = ROOT / "tests" / "contract" / "fixtures" / "basic" / "graphs.py"
SHARED, OLD, NEW = b"shared by all", b"the old one of a", b"the new one of a, in bytes \xff"
ENV = {"SECRET_OF_A": "whsec_" + base64.b64encode(NEW).decode(), "SECRET_OF_A_BEFORE": OLD.decode()}


def _verifier() -> Callable[[Any, bytes, bytes], bool]:
    page = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    code = next(block for block in page.split("```python\n")[1:] if "def is_genuine" in block).partition("```")[0]
    made: dict[str, Any] = {}
    exec(code, made)  # the page's own example
    return made["is_genuine"]


is_genuine = _verifier()


def signed_by(got: Received) -> set[bytes]:
    """Whose secrets a receiver takes it from."""
    return {key for key in (SHARED, OLD, NEW) if is_genuine(got.headers, got.raw, key)}


@asynccontextmanager
async def tenants(
    database_uri: str, project: Path, *, secrets: dict[str, Any], **settings: Any
) -> AsyncGenerator[tuple[Client, Client]]:
    """Clients of the tenants a and b, on a server with these secrets."""
    config = {
        "dependencies": ["."],
        "graphs": {"steps": f"{GRAPHS}:steps"},
        "webhooks": {"url": {"disable_loopback": False}},
        "env": ENV,
        "waystation": {"auth": {"api_keys": True}, "webhooks": {"secrets": secrets}},
    }
    (project / "langgraph.json").write_text(json.dumps(config))
    keys = [await new_key(database_uri, "someone", "user", tenant=tenant) for tenant in ("a", "b")]
    given: dict[str, Any] = {"webhook_retry_s": 0.2, "webhook_secret": SHARED.decode()} | settings
    with live_server_on(database_uri, project=project, settings=Settings(**given)) as server:
        async with AsyncExitStack() as stack:
            a, b = [await stack.enter_async_context(get_client(url=server.url, api_key=key)) for key in keys]
            yield a, b


async def _told(client: Client, url: str) -> None:
    await client.runs.create(None, "steps", input={"n": 0}, webhook=url)


async def test_a_tenant_signs_with_its_own_secret_and_others_with_that_of_all(
    database_uri: str, tmp_path: Path
) -> None:
    async with (
        tenants(database_uri, tmp_path, secrets={"a": "SECRET_OF_A"}) as (a, b),
        receiver(fails_first(1)) as of_a,
        receiver() as of_b,
    ):
        await _told(a, of_a.url)
        await _told(b, of_b.url)
        again = await of_a.until(2)
        [other] = await of_b.until(1)
    assert [signed_by(one) for one in again] == [{NEW}, {NEW}]
    assert signed_by(other) == {SHARED}


async def test_both_secrets_of_a_tenant_are_taken_during_a_rotation(database_uri: str, tmp_path: Path) -> None:
    secrets = {"a": ["SECRET_OF_A", "SECRET_OF_A_BEFORE"]}
    async with tenants(database_uri, tmp_path, secrets=secrets, webhook_secret=None) as (a, b), receiver() as it:
        await _told(a, f"{it.url}/a")
        await _told(b, f"{it.url}/b")
        got = {one.path: one for one in await it.until(2)}
    assert signed_by(got["/hook/a"]) == {OLD, NEW}
    assert len(got["/hook/a"].headers["webhook-signature"].split()) == 2
    assert "webhook-signature" not in got["/hook/b"].headers
