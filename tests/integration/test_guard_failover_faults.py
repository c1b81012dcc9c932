"""Every fault of a provider, lasting and passing, over HTTP: the answer arrives whole, and nothing is said twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from failover_cases import FAULTS, SHOWN_BEFORE, Seen, failover, obedient, play
from haste import within_its_time
from providers import FaultServer
from waystation_guards.failover.hedging import Hedge
from waystation_guards.failover.policy import OnBreak

pytestmark = pytest.mark.anyio

PATIENCE_S = 0.4
"""How long a target may be silent in these cases; in all of this process, too, or a well one is given up."""

BROKEN = frozenset(("cut", "reset_mid_stream", "hang_mid_stream", "malformed", "error_event", "no_end", "no_finish"))
"""Faults after tokens were shown."""


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(answers=obedient) as server:
        yield server


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "passing"])
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "bad_request"])
@within_its_time(PATIENCE_S)
async def test_every_fault_but_a_wrong_request_is_survived(server: FaultServer, name: str, lasting: bool) -> None:
    seen = await play(server, failover(), name, lasting=lasting)
    assert (seen.survived, seen.repeated) == (True, 0), seen
    assert bool(seen.told["continued"]) == (name in BROKEN)
    assert seen.retracted == 0 or name == "truncated_tool"


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "passing"])
@within_its_time(PATIENCE_S)
async def test_a_wrong_request_fails_at_once_and_costs_nothing(server: FaultServer, lasting: bool) -> None:
    seen = await play(server, failover(), "bad_request", lasting=lasting)
    assert (seen.survived, seen.shown) == (False, 0)
    assert len(server.requests) == 1
    assert server.bill.nano_usd == 0


@pytest.mark.parametrize("name", ["cut", "error_event", "truncated_tool"])
@within_its_time(PATIENCE_S)
async def test_a_restart_takes_back_all_that_it_says_again(server: FaultServer, name: str) -> None:
    seen = await play(server, failover("restart"), name, lasting=True)
    assert (seen.survived, seen.repeated) == (True, 0)
    assert seen.retracted >= SHOWN_BEFORE


@pytest.mark.parametrize("on_break", ["continue", "fail"])
@within_its_time(PATIENCE_S)
async def test_a_break_is_shown_or_told_never_hidden(server: FaultServer, on_break: OnBreak) -> None:
    seen: Seen = await play(server, failover(on_break), "cut", lasting=True)
    assert (seen.error, seen.survived) == (("StreamBroken", False) if on_break == "fail" else ("", True))


@within_its_time(PATIENCE_S)
async def test_a_hang_is_overtaken_by_a_hedge_before_it_times_out(server: FaultServer) -> None:
    seen = await play(server, failover(hedge=Hedge(after_s=0.02, least_s=0.02)), "hang", lasting=True)
    assert (seen.survived, seen.told["hedged"], seen.told["failures"]) == (True, True, [])
    assert [one.ended for one in server.requests if one.target == "a"] == ["aborted"]
