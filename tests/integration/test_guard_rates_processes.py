"""One rate for a model, kept by four processes together: not four times as much, and nobody passed by for ever."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from guard_rate_worker import Went, Workers, effective_rate

PROCESSES = 4


@pytest.fixture(scope="module")
def workers() -> Generator[Workers]:
    with Workers(PROCESSES) as running:
        yield running


@pytest.fixture(params=["redis", "postgres"])
def stores(request: pytest.FixtureRequest, database_uri: str, redis_url: str) -> dict[str, str]:
    return {"uri": database_uri, "redis": redis_url if request.param == "redis" else ""}


def together(went: Sequence[Went]) -> Went:
    return sorted(one for of_one in went for one in of_one)


def test_four_processes_make_as_many_calls_as_one_may(workers: Workers, stores: dict[str, str]) -> None:
    rate: dict[str, Any] = {"requests": 6000, "seconds": 60, "burst": 0.005}
    went = workers.spend({**stores, "rate": rate, "callers": 8, "seconds": 2, "tokens": [1]})
    effective = effective_rate(together(went), workers.began_at, bucket=30)
    assert effective <= 102
    assert min(len(of_one) for of_one in went) > 0  # each had its part


def test_tokens_are_shared_and_large_calls_get_through(workers: Workers, stores: dict[str, str]) -> None:
    rate: dict[str, Any] = {"input_tokens": 60_000, "seconds": 60, "burst": 0.01}
    task = {**stores, "rate": rate, "callers": 6, "seconds": 2, "tokens": [400, 20, 20, 20]}
    went = together(workers.spend(task))
    assert effective_rate(went, workers.began_at, bucket=600, weigh=True) <= 1000 * 1.02
    sizes = [tokens for _, tokens in went]
    assert {20, 400} <= set(sizes)
