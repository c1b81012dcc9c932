"""What providers report of their limits is heeded: headers of OpenAI's and Anthropic's APIs, told by a local server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from haste import within_its_time
from providers import FaultServer, Plan
from waystation_guards.errors import RateLimited
from waystation_guards.guarded.graph import guarded
from waystation_guards.memory.ports import memory_ports
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Draw, Rate, use_ports
from waystation_guards.rates.guard import RateLimit
from waystation_guards.rates.headers import Reported, reported
from waystation_guards.rates.rules import ModelRate

pytestmark = pytest.mark.anyio

OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-sonnet-5"


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    use_ports(replace(memory_ports(), state=MemoryState(clock)))
    return clock


@pytest.fixture
def state(clock: Clock) -> MemoryState:
    state = MemoryState(clock)
    use_ports(replace(memory_ports(), state=state))
    return state


@pytest.fixture
def server() -> Generator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
async def openai(server: FaultServer) -> AsyncGenerator[Any]:
    """A model whose connections end with the test."""
    chat: Any = ChatOpenAI
    async with httpx.AsyncClient() as awaited:
        with httpx.Client() as blocking:
            yield chat(
                model="gpt-4o-mini",
                base_url=server.openai,
                api_key="k",
                include_response_headers=True,
                max_retries=0,
                http_client=blocking,
                http_async_client=awaited,
            )


@pytest.fixture
async def anthropic(server: FaultServer) -> AsyncGenerator[Any]:
    """As `openai`; LangChain makes this one's HTTP client."""
    chat: Any = ChatAnthropic
    model = chat(model="claude-sonnet-5", base_url=server.anthropic, api_key="k", max_retries=0)
    yield model
    await model._async_client.close()


async def left(state: MemoryState, target: str, kind: str, amount: int) -> int:
    drawn = await state.draw([Draw(f"shared:{{model-rates}}/{target}/{kind}", Rate(amount, 60.0), 0)])
    return drawn.left[0]


async def paused_s(state: MemoryState, target: str) -> float:
    return await state.take(f"shared:{{model-rates}}/{target}/pause", [Rate(1, 1.0)], 0)


class TestOpenAI:
    HEADERS: ClassVar[Mapping[str, str]] = {
        "x-ratelimit-remaining-requests": "7",
        "x-ratelimit-remaining-tokens": "1200",
    }

    async def test_what_is_left_is_lowered_to_what_the_provider_says(
        self, server: FaultServer, openai: Any, state: MemoryState
    ) -> None:
        server.always(Plan("ok", headers=self.HEADERS))
        model = guarded(openai, [RateLimit(ModelRate(requests=100, tokens=50_000))])
        await model.ainvoke("hi")
        assert await left(state, OPENAI, "requests", 100) == 7
        assert await left(state, OPENAI, "tokens", 50_000) == 1200

    async def test_streams_report_too(self, server: FaultServer, openai: Any, state: MemoryState) -> None:
        server.always(Plan("ok", headers=self.HEADERS))
        model = guarded(openai, [RateLimit(ModelRate(requests=100))])
        assert [chunk async for chunk in model.astream("hi")]
        assert await left(state, OPENAI, "requests", 100) == 7

    async def test_a_provider_with_more_than_we_allow_changes_nothing(
        self, server: FaultServer, openai: Any, state: MemoryState
    ) -> None:
        server.always(Plan("ok", headers={"x-ratelimit-remaining-requests": "4999"}))
        model = guarded(openai, [RateLimit(ModelRate(requests=100))])
        await model.ainvoke("hi")
        assert await left(state, OPENAI, "requests", 100) == 99

    @pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
    async def test_a_refusal_pauses_the_target_for_everybody(
        self, server: FaultServer, openai: Any, state: MemoryState, form: Any
    ) -> None:
        server.script(Plan("rate_limit", retry_after_s=40, retry_after_as=form))
        one, other = (guarded(openai, [RateLimit(ModelRate(requests=100), wait_s=5)]) for _ in range(2))
        with pytest.raises(Exception, match="429"):
            await one.ainvoke("hi")
        assert 35 < await paused_s(state, OPENAI) <= 40
        with pytest.raises(RateLimited) as refused:
            await other.ainvoke("hi")
        assert refused.value.retry_after_s is not None
        assert 35 < refused.value.retry_after_s <= 40
        assert len(server.requests) == 1

    async def test_refusals_that_say_nothing_pause_longer_each_time(
        self, server: FaultServer, openai: Any, clock: Clock, state: MemoryState
    ) -> None:
        server.always(Plan("rate_limit", retry_after_s=None))
        model = guarded(openai, [RateLimit(ModelRate(requests=100), wait_s=0)])
        pauses: list[float] = []
        for _ in range(4):
            with pytest.raises(Exception, match="429"):
                await model.ainvoke("hi")
            pauses.append(await paused_s(state, OPENAI))
            clock.now += pauses[-1] + 0.001
        assert 0.7 < pauses[0] < 1.3
        assert pauses == sorted(pauses)
        assert 6 < pauses[3] < 10

    async def test_blocking_calls_report_too(self, server: FaultServer, openai: Any, state: MemoryState) -> None:
        server.always(Plan("ok", headers=self.HEADERS))
        model = guarded(openai, [RateLimit(ModelRate(requests=100))])
        await asyncio.to_thread(model.invoke, "hi")
        assert await left(state, OPENAI, "requests", 100) == 7


class TestAnthropic:
    HEADERS: ClassVar[Mapping[str, str]] = {
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-output-tokens-remaining": "400",
    }

    @pytest.mark.parametrize("streams", [False, True])
    async def test_its_headers_are_heard_at_its_http_client(
        self, server: FaultServer, anthropic: Any, state: MemoryState, streams: bool
    ) -> None:
        server.always(Plan("ok", headers=self.HEADERS))
        limiter = RateLimit(ModelRate(requests=100, input_tokens=30_000, output_tokens=8_000))
        model = guarded(limiter.attend(anthropic), [limiter])
        if streams:
            assert [chunk async for chunk in model.astream("hi")]
        else:
            await model.ainvoke("hi")
        assert await left(state, ANTHROPIC, "requests", 100) == 3
        assert await left(state, ANTHROPIC, "input_tokens", 30_000) == 900
        assert await left(state, ANTHROPIC, "output_tokens", 8_000) == 400

    async def test_a_refusal_pauses_also_where_nobody_attends(
        self, server: FaultServer, anthropic: Any, state: MemoryState
    ) -> None:
        server.script(Plan("rate_limit", retry_after_s=20))
        with pytest.raises(Exception, match="429"):
            await guarded(anthropic, [RateLimit()]).ainvoke("hi")
        assert 15 < await paused_s(state, ANTHROPIC) <= 20

    async def test_an_overload_pauses_only_where_it_says_for_how_long(
        self, server: FaultServer, anthropic: Any, state: MemoryState
    ) -> None:
        server.script(Plan("overloaded", retry_after_s=None), Plan("overloaded", retry_after_s=9))
        model = guarded(anthropic, [RateLimit()])
        for expected in (0.0, 9.0):
            with pytest.raises(Exception, match=r"529|verloaded"):
                await model.ainvoke("hi")
            assert expected - 1 <= await paused_s(state, ANTHROPIC) <= expected


@within_its_time(3)  # what a process that was stopped sends afterwards comes too close together
async def test_a_limiter_keeps_a_client_within_a_providers_own_limit(server: FaultServer, openai: Any) -> None:
    server.reset()
    use_ports(memory_ports())
    server.target().allow(requests=8, tokens=100_000, per_s=0.8)
    limiter = RateLimit(ModelRate(requests=8, seconds=0.8, burst=0.5), wait_s=30)
    model = guarded(openai, [limiter])
    answers = await asyncio.gather(*(model.ainvoke("hi") for _ in range(24)), return_exceptions=True)
    assert [type(one).__name__ for one in answers] == ["AIMessage"] * 24
    assert {seen.status for seen in server.requests} == {200}


def test_headers_are_read_as_providers_write_them() -> None:
    now = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
    assert reported(
        {
            "X-RateLimit-Limit-Requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    ) == [Reported("requests", 60, 59, 1.0), Reported("tokens", 150_000, 149_984, 360.0)]
    assert reported(
        {
            "date": format_datetime(now, usegmt=True),
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": (now + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    ) == [Reported("requests", 50, 0, 30.0)]


@pytest.mark.parametrize("nonsense", ["", "nan", "inf", "-1", "1e9", "many", "9" * 40, "\x00", "٣"])
def test_nonsense_in_headers_is_passed_over(nonsense: str) -> None:
    assert reported({"x-ratelimit-remaining-requests": nonsense}) == []
    report = reported({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": nonsense})
    assert report == [Reported("requests", None, 5, None)]
