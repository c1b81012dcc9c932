"""What a provider says of its limits, turned into what all processes do: less is left, or nothing for a while."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final

from waystation_guards.ports import Draw, State
from waystation_guards.providers.errors import classify
from waystation_guards.rates.headers import Reported, headers_in, headers_of, reported
from waystation_guards.rates.rules import Asked, pause_of
from waystation_guards.watching.watcher import ModelCall

_BACKOFF_S: Final = (1.0, 60.0)
_MOST_S: Final = 3600.0
"""No provider is believed that asks for a longer pause."""
_BELIEVED: Final = 0.9
"""A provider that reports less than this part of what is left here is believed. Both count calls that are under way at
different moments: what differs less means nothing."""


async def heed(
    state: State,
    call: ModelCall,
    target: str,
    seen: Sequence[tuple[Asked, int]],
    *,
    heard: Mapping[str, str],
    refusals: int,
) -> None:
    """Pause the target where its provider asks for that; lower what is left to what its provider says is left.

    `seen`: what the call drew, and what that left. `heard`: headers that were heard beside LangChain. `refusals`: how
    many calls in a row were refused before, for providers that refuse without saying for how long.
    """
    headers = headers_of(call.error) or headers_in(call.response) or heard
    pause_s = None if call.error is None else _pause_asked(call.error, refusals)
    if pause_s:
        await state.pause(pause_of(target).name, min(pause_s, _MOST_S))
    for report in reported(headers):
        await _believe(state, target, report, [(asked, left) for asked, left in seen if asked.kind == report.kind])


def _pause_asked(error: BaseException, refusals: int) -> float | None:
    failure = classify(error)
    if failure.kind not in ("rate_limit", "overload"):
        return None
    if failure.retry_after_s is not None or failure.kind == "overload":
        return failure.retry_after_s  # what is overloaded and says no more is the breakers' business
    first, longest = _BACKOFF_S
    return min(longest, first * 2 ** min(refusals, 10)) * random.uniform(0.8, 1.2)


async def _believe(state: State, target: str, report: Reported, seen: Sequence[tuple[Asked, int]]) -> None:
    counted = [(asked, left) for asked, left in seen if asked.rule.per == "target"]
    for asked, left in counted:
        if report.remaining >= max(0, left) * _BELIEVED:
            continue
        name, rate = asked.draw.name, asked.draw.rate
        (now,) = (await state.draw([Draw(name, rate, 0)])).left
        if now > report.remaining:
            await state.give_back(name, [rate], report.remaining - now)
    if not counted and report.remaining == 0 and report.reset_s:
        # Nobody limits this here. The provider refills evenly: the first of it is back long before the last.
        await state.pause(pause_of(target).name, report.reset_s / max(1, report.limit or 1))
