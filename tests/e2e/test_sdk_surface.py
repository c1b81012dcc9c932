"""Every public method of the official Python client against a live server, async and sync, and none left out."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client, get_sync_client

from e2e.sdk_entries import ENTRIES, KINDS, Entry, Scenario
from e2e.sdk_kinds import Blocking, Calls, recorded
from e2e.sdk_surface import EVERYWHERE, NOT_TESTED, Surface, entries, page, surface
from live_server import LiveServer

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "sdk.md"
WITHIN_S = 60
_known: dict[str, Surface] = {}


def uses() -> list[Any]:
    """Each scenario once for each kind, with all entries that it makes."""
    found: dict[tuple[str, int], list[Entry]] = {}
    for kind in KINDS:
        for entry in ENTRIES:
            if kind in entry.kinds:
                found.setdefault((kind, id(entry.scenario)), []).append(entry)
    return [
        pytest.param(kind, made[0].scenario, made, id=f"{made[0].path}-{made[0].name}-{kind}")
        for (kind, _), made in found.items()
    ]


@pytest.mark.parametrize(("kind", "scenario", "made"), uses())
async def test_it_does_what_it_says(kind: str, scenario: Scenario, made: list[Entry], live_server: LiveServer) -> None:
    calls = await (_async if kind == "async" else _sync)(scenario, live_server.url)
    signatures = _known.setdefault(kind, {}) or await surface(kind)
    _known[kind] = signatures
    for entry in made:
        if signatures[entry.path] is not None:
            assert entry.path in calls, f"{entry.path} was not called"
            assert entry.keywords <= calls[entry.path], f"not given to {entry.path}"


async def _async(scenario: Scenario, url: str) -> Calls:
    async with get_client(url=url) as client:
        calls = recorded(client)
        await _run(scenario, client)
    return calls


async def _sync(scenario: Scenario, url: str) -> Calls:
    with get_sync_client(url=url) as client:
        calls = recorded(client)
        await _run(scenario, Blocking(lambda: client))
    return calls


async def _run(scenario: Scenario, client: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*checkpoint_during.*", DeprecationWarning)
        async with asyncio.timeout(WITHIN_S):
            await scenario(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_public_is_left_out_and_nothing_is_made_up(kind: str) -> None:
    there, table = set(await surface(kind)), set(entries(kind))
    assert there - table - NOT_TESTED.keys() == set(), "public, and has no entry"
    assert table - there == set(), "has an entry, and is not there any more"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_argument_is_exercised(kind: str) -> None:
    missing: list[str] = []
    for path, signature in (await surface(kind)).items():
        names = set(signature.parameters) if signature else set[str]()
        given = {name for entry in entries(kind).get(path, []) for name in entry.keywords}
        assert given <= names, f"{path} has no {given - names}"
        missing += [f"{path}:{name}" for name in names - given - EVERYWHERE]
    assert set(missing) - NOT_TESTED.keys() == set()


async def test_the_page_says_what_is_tested() -> None:
    assert PAGE.read_text() == await page(), "write it anew: PYTHONPATH=tests python -m e2e.sdk_surface > docs/sdk.md"
