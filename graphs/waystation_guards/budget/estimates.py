"""What a model call will come to, before it is made; and what it came to where nobody says.

Counting is approximate on purpose: a tokenizer per provider would cost more than it tells, and the ratio of actual to
estimate is learned per model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from waystation_guards.budget.pricing import Prices, Rates

_CHARS_PER_TOKEN: Final = 4
_EXPECTED_OUTPUT: Final = 500
"""Tokens, before anything is learned: a long paragraph."""
_WORST_OUTPUT: Final = 8_192
"""Tokens, where the program sets no `max_tokens`: what most models stop at by themselves."""
_WORST_INPUT: Final = 1.5
"""How far the count of input tokens may be off: scripts that a tokenizer knows badly."""
_MOSTLY_RIGHT: Final = 4
_SMALL: Final = 20
"""Tokens by which a count is off without saying anything: of short answers, a word more or less."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A call's expected and worst cost; `nano_usd` is None for a model without a price."""

    input_tokens: int
    output_tokens: int
    worst_tokens: int
    nano_usd: int | None
    worst_nano_usd: int | None
    plain_nano_usd: int | None = None
    """The expected cost before what was learned: what is to be learned from."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def input_tokens(messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> int:
    """The tokens of a prompt: its messages and the tools that are described in it."""
    tools = params.get("tools") or params.get("functions") or ()
    described = len(json.dumps(tools, default=str)) if tools else 0
    return count_tokens_approximately(messages) + ceil(described / _CHARS_PER_TOKEN)


def estimate(
    prices: Prices,
    *,
    model: str,
    provider: str,
    prompt_tokens: int,
    max_tokens: int | None,
    ratio: float = 1.0,
    flat: Rates | None = None,
) -> Estimate:
    """What a call with such a prompt will come to. `ratio` is what is learned; `flat` the price where there is none."""
    worst_output = max_tokens or _WORST_OUTPUT
    output = min(worst_output, _EXPECTED_OUTPUT)
    worst_input = ceil(prompt_tokens * _WORST_INPUT)
    expected = _cost(prices, model, provider, prompt_tokens, output, flat)
    worst = _cost(prices, model, provider, worst_input, worst_output, flat)
    if expected is None or worst is None:
        return Estimate(prompt_tokens, output, worst_input + worst_output, None, None)
    cost = min(worst, ceil(expected * ratio))
    return Estimate(prompt_tokens, output, worst_input + worst_output, cost, worst, expected)


def counted_usage(prompt_tokens: int, *, chunks: int, chars: int) -> dict[str, Any]:
    """Usage metadata of a call whose provider reports none: a stream's chunks are mostly one token each."""
    output = max(chunks, ceil(chars / _CHARS_PER_TOKEN))
    return {"input_tokens": prompt_tokens, "output_tokens": output, "total_tokens": prompt_tokens + output}


def completed_usage(
    reported: Mapping[str, Any] | None, prompt_tokens: int, *, chunks: int, chars: int
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """What a provider reports, with what it leaves out counted; and the names of what was counted.

    A stream that breaks off before its usage has told nothing, or what was true at its beginning: the prompt and one
    token. Less than a quarter of what came cannot be right.
    """
    counted = counted_usage(prompt_tokens, chunks=chunks, chars=chars)
    if reported is None:
        return counted, ("input_tokens", "output_tokens")
    missing: list[str] = []
    if not reported.get("input_tokens"):
        missing.append("input_tokens")
    said = int(reported.get("output_tokens") or 0)
    if (not said and counted["output_tokens"]) or said * _MOSTLY_RIGHT + _SMALL < counted["output_tokens"]:
        missing.append("output_tokens")
    if not missing:
        return reported, ()
    whole = {**reported, **{name: counted[name] for name in missing}}
    if "output_tokens" in missing:
        whole.pop("output_token_details", None)
    return {**whole, "total_tokens": whole["input_tokens"] + whole["output_tokens"]}, tuple(missing)


def _cost(prices: Prices, model: str, provider: str, ins: int, outs: int, flat: Rates | None) -> int | None:
    cost = prices.expected(model, ins, outs, provider=provider or None)
    if cost is not None or flat is None:
        return cost
    return flat.nano_usd({"input_tokens": ins, "output_tokens": outs})
