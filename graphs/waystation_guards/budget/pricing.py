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
from functools import lru_cache
from hashlib import sha256
from math import ceil
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

_KINDS: Final = ("cache_read", "cache_creation", "audio", "reasoning")
_RATES: Final = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "audio_output",
    "reasoning",
)


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
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    reasoning: Decimal | None = None

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], *, of: str) -> Rates:
        """Rates from JSON; `of` whose they are, for the message.

        Raises:
            ValueError: a member is missing, unknown, or no price.
        """
        unknown = set(given) - set(_RATES)
        if unknown:
            raise ValueError(f"price of {of}: {', '.join(sorted(unknown))} is not one of {', '.join(_RATES)}")
        try:
            rates = {name: Decimal(str(value)) for name, value in given.items()}
        except InvalidOperation:
            raise ValueError(f"price of {of}: dollars per million tokens were expected, not {dict(given)}") from None
        if missing := {"input", "output"} - set(rates):
            raise ValueError(f"price of {of}: {', '.join(sorted(missing))} is missing")
        if any(not rate.is_finite() or rate < 0 for rate in rates.values()):
            raise ValueError(f"price of {of}: no price is below zero or infinite")
        return cls(**rates)

    def nano_usd(self, usage: Mapping[str, Any]) -> int:
        """The cost of LangChain's usage metadata, whose details are parts of its totals."""
        ins, outs = details(usage, "input_token_details"), details(usage, "output_token_details")
        read, write, hour = ins["cache_read"], ins["cache_creation"], ins["cache_creation_1h"]
        heard, spoken, reasoned = ins["audio"], outs["audio"], outs["reasoning"]
        parts = (
            (max(0, int(usage.get("input_tokens") or 0) - read - write - heard), self.input),
            (read, self.cache_read),
            (write - hour, self.cache_write),
            (hour, self.cache_write if self.cache_write_1h is None else self.cache_write_1h),
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
            own = {name: Rates.from_mapping(rates, of=name) for name, rates in models.items()}
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

    def expected(self, model: str, input_tokens: int, output_tokens: int, *, provider: str | None = None) -> int | None:
        """About what such a call will cost, in nano-dollars; None without a price. Ten times as fast as `cost`.

        The library's prices that depend on the length of a prompt are taken at the next power of two.
        """
        if f"{provider}:{model}" in self.own or model in self.own:
            price = self.cost(model, {"input_tokens": input_tokens, "output_tokens": output_tokens}, provider=provider)
            return None if price is None else price.nano_usd
        rates = _library_rates(model, provider, 1 << max(0, input_tokens - 1).bit_length())
        return None if rates is None else ceil(input_tokens * rates[0] + output_tokens * rates[1])


def rounded(dollars: Decimal) -> int:
    """Dollars as whole nano-dollars."""
    return int((dollars * NANO).to_integral_value(ROUND_HALF_UP))


def details(usage: Mapping[str, Any], name: str) -> dict[str, int]:
    """The counts of one of usage metadata's members of details, by kind.

    LangChain names kinds of a service tier with a prefix (`priority_cache_read`), and Anthropic's cache writes also by
    how long they are kept (`ephemeral_1h_input_tokens`), instead of `cache_creation` or besides it.
    """
    found = {kind: int(count or 0) for kind, count in cast("Mapping[str, Any]", usage.get(name) or {}).items()}
    counts = {kind: sum(count for one, count in found.items() if _is(one, kind)) for kind in _KINDS}
    kept = sum(count for kind, count in found.items() if kind.startswith("ephemeral_"))
    hour = found.get("ephemeral_1h_input_tokens", 0)
    return {**counts, "cache_creation": max(counts["cache_creation"], kept), "cache_creation_1h": hour}


def _is(name: str, kind: str) -> bool:
    return name == kind or (name.endswith(f"_{kind}") and name.partition("_")[0] in ("priority", "flex"))


@lru_cache(maxsize=4096)
def _library_rates(model: str, provider: str | None, prompt: int) -> tuple[float, float] | None:
    """Nano-dollars of a token in a prompt of this length, and of one in the answer to it."""
    with_answer = _library_cost(model, {"input_tokens": prompt, "output_tokens": 1000}, provider)
    without = _library_cost(model, {"input_tokens": prompt, "output_tokens": 0}, provider)
    if with_answer is None or without is None:
        return None
    return float(without * NANO / prompt), float((with_answer - without) * NANO / 1000)


def _library_cost(model: str, usage: Mapping[str, Any], provider: str | None) -> Decimal | None:
    ins, outs = details(usage, "input_token_details"), details(usage, "output_token_details")
    counts = {
        "input_tokens": int(usage.get("input_tokens") or 0),
        "output_tokens": int(usage.get("output_tokens") or 0),
        "cache_read_tokens": ins["cache_read"],
        "cache_write_tokens": ins["cache_creation"],
        "cache_write_1h_tokens": ins["cache_creation_1h"],
        "input_audio_tokens": ins["audio"],
        "output_audio_tokens": outs["audio"],
        "output_reasoning_tokens": outs["reasoning"],
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
