"""What a model call costs: prices from genai-prices, offline, and from a file of the operator's own.

    prices = Prices.load("prices.json")           {"models": {"my-model": {"input": 0.5, "output": 2.0}}}
    prices.cost("gpt-4o-mini", usage, provider="openai")    -> Price(nano_usd=…, version="genai-prices 0.2.3")

A file's price wins over the library's. Prices in the file are in US dollars per million tokens. A model that neither
knows has no price: never zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

from genai_prices import Usage, __version__, calc_price

NANO: Final = Decimal(1_000_000_000)
_LIBRARY: Final = f"genai-prices {__version__}"

_PROVIDERS: Final[Mapping[str, str]] = {
    "amazon_bedrock": "aws",
    "bedrock": "aws",
    "azure_openai": "azure",
    "azure_ai": "azure",
    "google_genai": "google",
    "google_vertexai": "google",
    "google_anthropic_vertex": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
}
"""LangChain's names of providers where genai-prices has others."""

_RATES: Final = ("input", "output", "cache_read", "cache_write", "audio_input", "audio_output", "reasoning")


@dataclass(frozen=True, slots=True)
class Price:
    """What a call came to, and by which price list."""

    nano_usd: int
    version: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of one model in US dollars per million tokens. What is left out costs as its larger kind does."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    reasoning: Decimal | None = None

    def nano_usd(self, usage: Mapping[str, Any]) -> int:
        """The cost of LangChain's usage metadata, whose details are parts of its totals."""
        ins, outs = details(usage, "input_token_details"), details(usage, "output_token_details")
        read, write = ins.get("cache_read", 0), ins.get("cache_creation", 0)
        heard, spoken, reasoned = ins.get("audio", 0), outs.get("audio", 0), outs.get("reasoning", 0)
        parts = (
            (max(0, int(usage.get("input_tokens") or 0) - read - write - heard), self.input),
            (read, self.cache_read),
            (write, self.cache_write),
            (heard, self.audio_input),
        )
        total = sum((count * (self.input if rate is None else rate) for count, rate in parts), Decimal(0))
        parts = (
            (max(0, int(usage.get("output_tokens") or 0) - spoken - reasoned), self.output),
            (spoken, self.audio_output),
            (reasoned, self.reasoning),
        )
        total += sum((count * (self.output if rate is None else rate) for count, rate in parts), Decimal(0))
        return rounded(total / 1_000_000)


@dataclass(frozen=True, slots=True)
class Prices:
    """A price list: the operator's rates, and the library for all other models."""

    own: Mapping[str, Rates] = field(default_factory=dict[str, Rates])
    version: str = _LIBRARY

    @classmethod
    def load(cls, path: str | Path) -> Prices:
        """Read the operator's file. Its digest becomes part of the version on each ledger row.

        Raises:
            ValueError: it is not as described; the message names the model and the member.
        """
        data = Path(path).read_bytes()
        try:
            models = cast("dict[str, dict[str, Any]]", json.loads(data)["models"])
            own = {name: _rates(name, rates) for name, rates in models.items()}
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a price list: an object with the member `models` was expected") from error
        return cls(own, f"{_LIBRARY}, file {sha256(data).hexdigest()[:12]}")

    def cost(self, model: str, usage: Mapping[str, Any], *, provider: str | None = None) -> Price | None:
        """What a call with this usage metadata costs; None if nobody knows the model's price."""
        rates = self.own.get(f"{provider}:{model}") or self.own.get(model)
        if rates is not None:
            return Price(rates.nano_usd(usage), self.version)
        dollars = _library_cost(model, usage, provider)
        return None if dollars is None else Price(rounded(dollars), self.version)


def rounded(dollars: Decimal) -> int:
    """Dollars as whole nano-dollars."""
    return int((dollars * NANO).to_integral_value(ROUND_HALF_UP))


def details(usage: Mapping[str, Any], name: str) -> dict[str, int]:
    """The counts of one of usage metadata's members of details."""
    found = cast("Mapping[str, Any]", usage.get(name) or {})
    return {kind: int(count or 0) for kind, count in found.items()}


def _library_cost(model: str, usage: Mapping[str, Any], provider: str | None) -> Decimal | None:
    ins, outs = details(usage, "input_token_details"), details(usage, "output_token_details")
    counts = {
        "input_tokens": int(usage.get("input_tokens") or 0),
        "output_tokens": int(usage.get("output_tokens") or 0),
        "cache_read_tokens": ins.get("cache_read", 0),
        "cache_write_tokens": ins.get("cache_creation", 0),
        "input_audio_tokens": ins.get("audio", 0),
        "output_audio_tokens": outs.get("audio", 0),
        "output_reasoning_tokens": outs.get("reasoning", 0),
    }
    # The library infers what is missing and refuses parts that exceed their whole: leave out what is nothing.
    given = {name: count for name, count in counts.items() if count or name in ("input_tokens", "output_tokens")}
    named = _PROVIDERS.get(provider, provider) if provider else None
    for provider_id in dict.fromkeys((named, None)):
        try:
            return calc_price(Usage(**given), model, provider_id=provider_id).total_price
        except LookupError:
            continue
        except ValueError:  # parts that exceed their whole: a provider's own mistake; priced without the details
            whole = Usage(input_tokens=counts["input_tokens"], output_tokens=counts["output_tokens"])
            return calc_price(whole, model, provider_id=provider_id).total_price
    return None


def _rates(model: str, given: Mapping[str, Any]) -> Rates:
    unknown = set(given) - set(_RATES)
    if unknown:
        raise ValueError(f"price of {model}: {', '.join(sorted(unknown))} is not one of {', '.join(_RATES)}")
    try:
        rates = {name: Decimal(str(value)) for name, value in given.items()}
    except InvalidOperation:
        raise ValueError(f"price of {model}: dollars per million tokens were expected, not {dict(given)}") from None
    if missing := {"input", "output"} - set(rates):
        raise ValueError(f"price of {model}: {', '.join(sorted(missing))} is missing")
    if any(rate < 0 or not rate.is_finite() for rate in rates.values()):
        raise ValueError(f"price of {model}: no price is below zero or infinite")
    return Rates(**rates)
