"""What was not spent: entries of the ledger that cost nothing and say what a guard saved, so that it can be summed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from waystation_guards.calls import CallSite
from waystation_guards.ports import Entry, Ports
from waystation_guards.pricing import Prices

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


def cost_of(prices: Prices, model: str, provider: str, usage: Mapping[str, Any] | None) -> int | None:
    """What a call comes to, in nano-dollars; None where nobody knows."""
    if not usage or not model:
        return None
    price = prices.cost(model, usage, provider=provider or None)
    return None if price is None else price.nano_usd
