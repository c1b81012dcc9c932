"""What was not spent: entries of the ledger that cost nothing and say what a guard saved, so that it can be summed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, cast
from uuid import uuid4

from langchain_core.language_models import BaseChatModel

from waystation_guards.budget.pricing import Prices
from waystation_guards.calls import CallSite
from waystation_guards.ports import Entry, Ports

log = logging.getLogger(__name__)

_WITHIN_S: Final = 2.0


async def record_saving(ports: Ports, site: CallSite, model: str, detail: Mapping[str, Any]) -> None:
    """Write a saving. `detail`: `what` saved, `saved_tokens` and `saved_nano_usd` (below zero where it cost more).

    Never raises for the ledger's own trouble: the call is over, and only the proof of what it saved is lost.
    """
    entry = Entry("saving", model, cost_nano_usd=0, detail={"node": site.node, **detail})
    try:
        async with asyncio.timeout(_WITHIN_S):
            await ports.ledger.settle(f"{uuid4()}/saving", site, entry)
    except Exception as error:
        log.warning("the ledger does not answer; a saving is missing in it", exc_info=error)


async def record_hit(ports: Ports, site: CallSite, name: str, saved: Mapping[str, Any], *, within_s: float) -> None:
    """Write a hit into the ledger: nothing spent, and what it saved. A ledger that is away loses it, and says so."""
    entry = Entry("cache_hit", name, cost_nano_usd=0, detail={"node": site.node, **saved})
    try:
        async with asyncio.timeout(within_s):
            await ports.ledger.settle(f"{uuid4()}/cache", site, entry)
    except Exception as error:  # the answer is there; only the proof of what it saved is lost
        log.warning("the ledger does not answer; a cache hit is missing in it", exc_info=error)


def cost_of(prices: Prices, model: str, provider: str, usage: Mapping[str, Any] | None) -> int | None:
    """What a call comes to, in nano-dollars; None where nobody knows."""
    if not usage or not model:
        return None
    price = prices.cost(model, usage, provider=provider or None)
    return None if price is None else price.nano_usd


def name_of(model: BaseChatModel, kwargs: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """A model's name and provider, as prices know them."""
    tells = cast("Any", model)
    ls, params = tells._get_ls_params(**(kwargs or {})), tells._get_invocation_params()
    name = params.get("model") or params.get("model_name") or ls.get("ls_model_name") or params.get("_type") or ""
    return str(name), str(ls.get("ls_provider") or "")


def saving_of_tokens(prices: Prices, model: BaseChatModel, tokens: int) -> tuple[str, int | None]:
    """The model's name, and what so many tokens less in its prompt save; None where nobody knows its price."""
    name, provider = name_of(model)
    return name, cost_of(prices, name, provider, {"input_tokens": max(0, tokens), "output_tokens": 0})
