"""Waiting for what can only be seen from outside, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from live_server import Client

WITHIN_S = 60.0
EVERY_S = 0.03


async def eventually(check: Callable[[], Awaitable[bool]], *, within_s: float = WITHIN_S) -> None:
    """Ask until it is true.

    Raises:
        AssertionError: it was not within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, f"not true after {within_s} s"
        await asyncio.sleep(EVERY_S)


async def run_becomes(client: Client, run: dict[str, Any], *statuses: str, within_s: float = WITHIN_S) -> None:
    """Wait until the run has one of these statuses; for a client of the official SDK."""
    seen: list[str] = []

    async def check() -> bool:
        seen.append((await client.runs.get(run["thread_id"], run["run_id"]))["status"])
        return seen[-1] in statuses

    try:
        await eventually(check, within_s=within_s)
    except AssertionError:
        raise AssertionError(f"the run is {seen[-1]} and not {' or '.join(statuses)} after {within_s} s") from None


async def thread_rests(client: Client, thread_id: str, *, within_s: float = WITHIN_S) -> str:
    """Wait until nothing is active on the thread. Its status."""
    status = ""

    async def check() -> bool:
        nonlocal status
        status = (await client.threads.get(thread_id))["status"]
        return status != "busy"

    await eventually(check, within_s=within_s)
    return status
