"""Real clients of providers: what is paid for once, and that no fault of a provider is ever given again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, cast

import pytest
from langchain_core.messages import HumanMessage

from integration.provider_calls import CLIENTS, HOWS, KEY, PATIENT, QUICK, SEARCH, How, called
from providers import FaultServer, Plan, Tariff
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.prompts import PromptCaching, PromptCachingModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.context.routed_model import MARK, RoutedModel
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports
from waystation_guards.watching.watcher import Watcher

pytestmark = pytest.mark.anyio

TARIFF: Final = Tariff(Decimal(1_000), Decimal(5_000), Decimal(100))
PRICES: Final = Prices({"m": Rates(TARIFF.input, TARIFF.output, cache_read=TARIFF.cached)})

ENDS: Final = ("cut", "malformed", "error_event", "no_end", "no_finish", "empty", "refusal", "truncated_tool")
"""Faults after the first byte; the last five arrive as a success."""
BEFORE: Final = ("rate_limit", "server_error", "overloaded", "context", "auth", "reset", "wrong_type")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv(KEY, "k")
    with FaultServer(tariffs={"m": TARIFF}) as server:
        yield server


class Payer:
    """A cache and a budget, and what the ledger says came of both."""

    def __init__(self) -> None:
        ports = memory_ports()
        use_ports(ports)
        self.ledger = cast("MemoryLedger", ports.ledger)
        self.answers = ResponseCache(CacheRules(temperature="any"), prices=PRICES)
        self.config: Any = {"callbacks": Watcher([Budget(Limit(1_000), prices=PRICES)]).handlers}

    def spent(self, kind: str = "model") -> int:
        return sum(entry.cost_nano_usd or 0 for _, _, entry in self.ledger.entries if entry.kind == kind)

    @property
    def saved(self) -> int:
        return sum(entry.detail["saved_nano_usd"] for _, _, entry in self.ledger.entries if entry.kind == "cache_hit")


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_provider_is_asked_once_and_its_bill_is_the_ledgers(provider: FaultServer, client: str) -> None:
    payer = Payer()
    model = CachedModel(inner=CLIENTS[client](provider.urls(), PATIENT), answers=payer.answers)
    for how in HOWS:
        outcome = await called(model, how, config=payer.config)
        assert outcome.text == "one two six ten"
    bill = provider.settled().bill
    assert len(provider.requests) == 1
    assert payer.spent() == bill.nano_usd > 0
    assert payer.spent("cache_hit") == 0
    assert payer.saved == 3 * bill.nano_usd


@pytest.mark.parametrize("first", HOWS)
@pytest.mark.parametrize("client", ["chat completions", "anthropic"])
async def test_tool_calls_are_given_again_as_they_were(provider: FaultServer, client: str, first: How) -> None:
    payer = Payer()
    provider.always(Plan("ok", text=" ", tool_calls=(("search", {"query": "one two"}),)))
    inner = CLIENTS[client](provider.urls(), PATIENT)
    model = CachedModel(inner=inner, answers=payer.answers).bind_tools([cast("Any", SEARCH)])
    ids = list[Any]()
    for how in (first, *HOWS):
        answer = (await called(cast("Any", model), how, config=payer.config)).answer
        assert answer is not None
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("search", {"query": "one two"})
        ids.append(call["id"])
    assert len(set(ids)) == len(ids)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("how", ["ainvoke", "astream", "stream"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_no_fault_is_given_again(provider: FaultServer, client: str, how: How) -> None:
    payer = Payer()
    inner = CLIENTS[client](provider.urls(), QUICK)
    model: Any = CachedModel(inner=inner, answers=payer.answers).bind_tools([cast("Any", SEARCH)])
    for number, fault in enumerate((*BEFORE, *ENDS)):
        asked = [HumanMessage(f"question {number}")]
        provider.script(fault)
        await called(model, how, asked=asked)
        before = len(provider.requests)
        outcome = await called(model, how, asked=asked)
        assert len(provider.requests) == before + 1, f"what {fault} left was given again"
        assert outcome.text == "one two six ten"
        assert (await called(model, how, asked=asked)).text == "one two six ten"
        assert len(provider.requests) == before + 1, f"after {fault} nothing was kept"


async def test_a_marked_prompt_reaches_the_provider_with_its_mark(provider: FaultServer) -> None:
    Payer()
    settings = PromptCaching(reuse="always", min_tokens=10)
    asked = [("system", "You are a careful assistant. " * 20), ("user", "hi")]
    for client in ("anthropic", "chat completions"):
        model = PromptCachingModel(inner=CLIENTS[client](provider.urls(), PATIENT), settings=settings, prices=PRICES)
        with suppress(StopIteration):
            await model.bind_tools([cast("Any", SEARCH)]).ainvoke(asked)
    anthropic = provider.requests[0].body
    assert anthropic["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert anthropic["tools"][-1]["cache_control"] == {"type": "ephemeral"}
    assert anthropic["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_small_models_cut_tool_call_is_the_large_models_to_make(provider: FaultServer, how: How) -> None:
    Payer()
    small, large = provider.target("small"), provider.target("large")
    small.always(Plan("truncated_tool", text=" "))
    large.always(Plan("ok", text=" ", tool_calls=(("search", {"query": "one"}),)))
    models = [CLIENTS["chat completions"](provider.urls(name), PATIENT) for name in ("small", "large")]
    routed = RoutedModel(inner=models[0], larger=models[1:], prices=PRICES).bind_tools([cast("Any", SEARCH)])
    answer = (await called(cast("Any", routed), how)).answer
    assert answer is not None
    assert [call["args"] for call in answer.tool_calls] == [{"query": "one"}]
    assert len(answer.response_metadata[MARK]["tried"]) == 2
    assert (len(small.seen), len(large.seen)) == (1, 1)
