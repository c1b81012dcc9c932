"""Requests made from the OpenAPI document, right and wrong ones: no 5xx, no hang, and answers as the document promises.

The examples are the same in every run, so that a failure belongs to the change that made it. The server has a process
of its own: Hypothesis does not bear a thread beside it that rolls dice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from e2e.bad_input import comes_to_rest, make_things
from e2e.operations import DOCUMENT, Things
from live_server import E2E

_general: Any = checks
_openapi: Any = openapi_checks
CHECKS: list[Any] = [
    _general.not_a_server_error,
    _openapi.status_code_conformance,
    _openapi.content_type_conformance,
    _openapi.response_schema_conformance,
]
EXAMPLES = 6
UNHURRIED = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
    HealthCheck.function_scoped_fixture,
)

schema: Any = schemathesis.openapi.from_dict(DOCUMENT)
"""As the checks above: their types leave parameters open."""


@pytest.fixture(scope="module")
def url(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "waystation.cli", "serve", "--with-worker", "-c", str(E2E / "langgraph.json")]
    log = tmp_path_factory.mktemp("fuzzed") / "log"
    environment = {**os.environ, "DATABASE_URI": make_database(), "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", port], stdout=output, stderr=output, env=environment
        )
    try:
        _await_ready(f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
        assert server.poll() is None, log.read_text()[-4000:]
    finally:
        server.terminate()
        server.wait(30)


def _await_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.05)


@pytest.fixture
def things(url: str) -> Generator[Things]:
    async def look(*, aftermath: bool) -> Things | None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            return await comes_to_rest(http) if aftermath else await make_things(http)

    made = asyncio.run(look(aftermath=False))
    assert made is not None
    yield made
    asyncio.run(look(aftermath=True))


@schema.given(aimed=st.booleans())
@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=UNHURRIED)
def test_answers_are_as_described(case: Any, aimed: bool, things: Things, url: str) -> None:
    bodies = [cast("dict[str, Any]", body) for body in _each(case.body) if isinstance(body, dict)]
    if aimed:  # what was made up leads nowhere: half of the requests get ids and names that exist
        ids: dict[str, str] = case.path_parameters or {}
        ids.update({name: getattr(things, name) for name in ids if hasattr(things, name)})
        for body in bodies:
            if isinstance(body.get("assistant_id"), str):
                body["assistant_id"] = "steps"
    for body in bodies:
        if isinstance(body.get("after_seconds"), int | float):
            body["after_seconds"] = min(body["after_seconds"], 0.2)  # it would be waited for
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=25)


def _each(body: Any) -> list[Any]:
    return cast("list[Any]", body) if isinstance(body, list) else [body]
