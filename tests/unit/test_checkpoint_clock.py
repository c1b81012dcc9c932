"""Ids of checkpoints go on from those that were read, and not from those that nobody can have made."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.base import id as ids

from waystation_db import checkpoint_clock

_A_MINUTE = 600_000_000  # in ticks of 100 ns


@pytest.fixture(autouse=True)
def own_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator as it was, afterwards."""
    monkeypatch.setattr(ids, "_last_v6_timestamp", None)


def _later(ticks: int) -> str:
    """An id from a clock that is so many ticks ahead."""
    now = ids.uuid6().int
    ids._last_v6_timestamp = None  # pyright: ignore
    time = ((now >> 80) << 12 | (now >> 64) & 0x0FFF) + ticks
    high, low = time >> 12, time & 0x0FFF
    return str(ids.UUID(int=high << 80 | low << 64 | now & (2**64 - 1), version=6))


def test_ids_follow_what_a_fast_clock_made() -> None:
    ahead = _later(10 * _A_MINUTE)
    assert str(ids.uuid6()) < ahead
    checkpoint_clock.witness(ahead)
    first, second = str(ids.uuid6()), str(ids.uuid6())
    assert ahead < first < second


def test_an_older_id_changes_nothing() -> None:
    latest = str(ids.uuid6())
    checkpoint_clock.witness(_later(-_A_MINUTE))
    assert str(ids.uuid6()) > latest


@pytest.mark.parametrize(
    "made_up", ["ffffffff-ffff-6fff-bfff-ffffffffffff", "not an id", "", "01a1fdd5-d2cf-718e-b872-c03654be6535"]
)
def test_an_id_that_nobody_made_is_not_followed(made_up: str) -> None:
    before = str(ids.uuid6())
    checkpoint_clock.witness(made_up)
    assert before < str(ids.uuid6()) < _later(_A_MINUTE)
