"""What a provider would charge: its own count, by its own prices, of every request it worked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final


@dataclass(frozen=True, slots=True)
class Tariff:
    """US dollars per million tokens. Reasoning costs as output does; cached input is part of the input."""

    input: Decimal = Decimal(10)
    output: Decimal = Decimal(100)
    cached: Decimal = Decimal(1)


DEFAULT_TARIFF: Final = Tariff()


@dataclass(frozen=True, slots=True)
class Charge:
    """One request's line: what the provider worked, whether or not the client heard of it."""

    target: str
    model: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    aborted: bool = False
    """The client had not all of it."""
    user: str = ""
    """Whom the request named as its `user`."""
    tariff: Tariff = DEFAULT_TARIFF

    @property
    def nano_usd(self) -> Decimal:
        """Exact, in billionths of a dollar."""
        fresh = self.input_tokens - self.cached_tokens
        millionths = fresh * self.tariff.input + self.cached_tokens * self.tariff.cached
        return (millionths + self.output_tokens * self.tariff.output) * 1000


@dataclass(frozen=True, slots=True)
class Bill:
    """All charges so far."""

    charges: Sequence[Charge]

    @property
    def nano_usd(self) -> Decimal:
        return sum((charge.nano_usd for charge in self.charges), Decimal(0))

    @property
    def usd(self) -> Decimal:
        return self.nano_usd / 1_000_000_000

    @property
    def input_tokens(self) -> int:
        return sum(charge.input_tokens for charge in self.charges)

    @property
    def output_tokens(self) -> int:
        return sum(charge.output_tokens for charge in self.charges)

    def of(self, *, target: str | None = None, model: str | None = None) -> Bill:
        """The part of a target or a model."""
        return Bill(
            [
                charge
                for charge in self.charges
                if (target is None or charge.target == target) and (model is None or charge.model == model)
            ]
        )


def price_list(tariffs: Mapping[str, Tariff]) -> dict[str, dict[str, dict[str, float]]]:
    """The tariffs as the operator's price file of `waystation_guards.budget.pricing` has them."""
    return {
        "models": {
            model: {"input": float(one.input), "output": float(one.output), "cache_read": float(one.cached)}
            for model, one in tariffs.items()
        }
    }
