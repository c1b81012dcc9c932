"""Tests that stand on real seconds: what a machine that lags behind saw in one says nothing, and is done again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from time import monotonic
from typing import Final, ParamSpec

import pytest

P = ParamSpec("P")

_TRIES: Final = 10


def within_its_time(lasts_s: float) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, Awaitable[None]]]:
    """A test that fails after more than `lasts_s` seconds runs again, on the same fixtures: it was too late for what it
    looked at. One that fails sooner has failed, and so has one that is too late ten times."""

    def of(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
        @wraps(test)
        async def tried(*args: P.args, **kwargs: P.kwargs) -> None:
            for _ in range(_TRIES - 1):
                began = monotonic()
                try:
                    return await test(*args, **kwargs)
                except (Exception, pytest.fail.Exception):
                    if monotonic() - began <= lasts_s:
                        raise
            return await test(*args, **kwargs)

        return tried

    return of
