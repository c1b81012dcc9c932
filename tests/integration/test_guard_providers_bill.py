"""The ledger's sum is what the provider charges, over answers, refusals, faults in the middle, streams broken off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing
from decimal import Decimal
from typing import Any, Final, Literal, cast
from urllib.parse import quote

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from integration.provider_calls import CLIENTS, KEY, PATIENT, QUICK, SEARCH, How, called
from providers import FaultServer, Plan, Tariff
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.calls import PORTS_KEY, CallSite
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Ports
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio

TARIFF: Final = Tariff(Decimal(1_000), Decimal(5_000), Decimal(100))
"""Half a cent per token of output, a tenth per token of input: no token can be missing unnoticed."""

Reading = Literal["to its end", "broken off", "cancelled"]

STREAMED: Final[tuple[tuple[Plan, Reading], ...]] = (
    (Plan("ok"), "to its end"),
    (Plan("ok", cached=4, reasoning=9), "to its end"),
    (Plan("ok", tool_calls=(("search", {"query": "one"}),)), "to its end"),
    (Plan("rate_limit"), "to its end"),
    (Plan("overloaded"), "to its end"),
    (Plan("server_error"), "to its end"),
    (Plan("context"), "to its end"),
    (Plan("auth"), "to its end"),
    (Plan("reset"), "to its end"),
    (Plan("refusal", after=2), "to its end"),
    (Plan("cut", after=2), "to its end"),
    (Plan("no_end", after=1), "to its end"),
    (Plan("no_finish"), "to its end"),
    (Plan("malformed", after=2), "to its end"),
    (Plan("error_event", after=3), "to its end"),
    (Plan("hang_mid_stream", after=2), "broken off"),
    (Plan("hang_mid_stream", after=3), "cancelled"),
)
"""What streams can tell exactly, whoever ends them. A reset is not among these: it overtakes tokens on their way."""

WHOLE: Final = (
    Plan("ok"),
    Plan("ok", cached=4, reasoning=9),
    Plan("rate_limit", retry_after_s=None),
    Plan("unavailable"),
    Plan("content_policy"),
    Plan("reset"),
    Plan("no_end"),
)
"""What answers that are not streamed can tell exactly."""

PROMPT: Final = [SystemMessage("Be brief."), HumanMessage("Say something, please. " * 20)]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv(KEY, "k")
    with FaultServer(tariffs={"m": TARIFF}) as server:
        yield server


class Payer:
    """Calls models under a budget that nothing passes, and adds up its ledger."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        rates = Rates(TARIFF.input, TARIFF.output, cache_read=TARIFF.cached)
        self._budget = Budget(Limit(1_000_000, scope="tenant"), prices=Prices({"m": rates}))
        self._ports = Ports(self.ledger, MemoryState(), MemoryCache())

    @property
    def config(self) -> Any:
        return watched({"configurable": {PORTS_KEY: self._ports}}, [self._budget])

    @property
    def nano_usd(self) -> int:
        return sum(entry.cost_nano_usd or 0 for _, _, entry in self.ledger.entries)

    async def held(self) -> float:
        (standing,) = await self._budget.standing(self._ports, CallSite())
        return standing.held


async def test_the_ledger_is_the_providers_bill_to_the_cent(provider: FaultServer) -> None:
    payer, order = Payer(), random.Random(7)
    plans: list[tuple[Plan, Reading | None]] = [*STREAMED, *((plan, None) for plan in WHOLE)]
    cases = [(name, *one) for name in CLIENTS for one in plans for _ in range(2)]
    order.shuffle(cases)
    calls = (_call(provider, payer, number, *case) for number, case in enumerate(cases))
    await asyncio.gather(*calls)
    bill = provider.settled().bill
    assert len(provider.requests) == len(cases)
    assert bill.usd > 15
    assert payer.nano_usd == bill.nano_usd
    assert await payer.held() == 0


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_stream_that_blocks_is_billed_alike(provider: FaultServer, client: str) -> None:
    payer = Payer()
    for fault in ("ok", "cut", "no_end", "rate_limit", "error_event"):
        provider.script(fault)
        await called(CLIENTS[client](provider.urls(), PATIENT), "stream", asked=PROMPT, config=payer.config)
    assert payer.nano_usd == provider.settled().bill.nano_usd > 0


@pytest.mark.parametrize("fault", ["cut", "hang_mid_stream", "malformed", "wrong_type"])
async def test_an_answer_that_is_lost_costs_what_was_expected(provider: FaultServer, fault: str) -> None:
    """Nobody can tell what was in it: the ledger says that it was counted, and is not below the bill."""
    payers = {client: Payer() for client in CLIENTS}
    await asyncio.gather(*(_lost(provider, client, payer, fault) for client, payer in payers.items()))
    provider.settled()
    for client, payer in payers.items():
        (entry,) = [entry for _, _, entry in payer.ledger.entries]
        assert entry.detail["counted"] == ["input_tokens", "output_tokens"]
        assert entry.cost_nano_usd is not None
        assert entry.cost_nano_usd >= provider.bill.of(target=client).nano_usd > 0
        assert entry.estimate_nano_usd is None, "something was learned of an answer that nobody saw"


async def test_a_first_token_that_never_comes_costs_the_prompt(provider: FaultServer) -> None:
    payer = Payer()
    provider.always("hang")
    models = [make(provider.urls(), QUICK) for make in CLIENTS.values()]
    await asyncio.gather(*(called(model, "astream", asked=PROMPT, config=payer.config) for model in models))
    assert payer.nano_usd == provider.settled().bill.nano_usd
    assert provider.bill.output_tokens == 0


async def _lost(provider: FaultServer, client: str, payer: Payer, fault: str) -> None:
    provider.target(client).always(fault)
    await called(CLIENTS[client](provider.urls(quote(client)), QUICK), "ainvoke", asked=PROMPT, config=payer.config)


async def _call(
    provider: FaultServer, payer: Payer, number: int, client: str, plan: Plan, reading: Reading | None
) -> None:
    provider.target(f"{number}").always(plan)
    model = CLIENTS[client](provider.urls(f"{number}"), PATIENT)
    if reading in (None, "to its end"):
        how: How = "ainvoke" if reading is None else "astream"
        asked = model.bind_tools([SEARCH]) if plan.tool_calls else model
        await called(asked, how, asked=PROMPT, config=payer.config)
    elif reading == "broken off":
        await _read(model, payer, plan.after)
    else:
        shown = asyncio.Event()
        reader = asyncio.create_task(_read(model, payer, plan.after, shown))
        async with asyncio.timeout(60):
            await shown.wait()
        reader.cancel()
        await asyncio.wait([reader])


async def _read(model: BaseChatModel, payer: Payer, words: int, shown: asyncio.Event | None = None) -> None:
    """Read so many words, then go away, or tell and wait for more."""
    stream = model.astream(PROMPT, payer.config)
    async with aclosing(cast("Any", stream)):
        async for piece in stream:
            words -= bool(piece.text)
            if not words and shown is None:
                return
            if not words and shown is not None:
                shown.set()
