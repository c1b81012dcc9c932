"""Requests made from the OpenAPI document, right and wrong ones: no 5xx, no hang, and answers as the document promises.

The examples are the same in every run, so that a failure belongs to the change that made it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from e2e.bad_input import comes_to_rest, make_things
from e2e.operations import DOCUMENT, ENDLESS, Things
from live_server import LiveServer

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

ENDING = {**DOCUMENT, "paths": {path: item for path, item in DOCUMENT["paths"].items() if path not in ENDLESS}}

schema: Any = schemathesis.openapi.from_dict(ENDING)
"""As the checks above: their types leave parameters open."""


@pytest.fixture
def things(live_server: LiveServer) -> Generator[Things]:
    async def look(*, aftermath: bool) -> Things | None:
        async with httpx.AsyncClient(base_url=live_server.url, timeout=60) as http:
            return await comes_to_rest(http) if aftermath else await make_things(http)

    made = asyncio.run(look(aftermath=False))
    assert made is not None
    yield made
    asyncio.run(look(aftermath=True))


@schema.given(aimed=st.booleans())
@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=UNHURRIED)
def test_answers_are_as_described(case: Any, aimed: bool, things: Things, live_server: LiveServer) -> None:
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
    case.call_and_validate(base_url=live_server.url, checks=CHECKS, timeout=60)


def _each(body: Any) -> list[Any]:
    return cast("list[Any]", body) if isinstance(body, list) else [body]
