"""What a run will come to, before it is run: from its input, and from what runs of the same graph came to.

    tokens = tokens_of(input) + tokens_of(messages of the thread)
    found = forecast(tokens, history=runs, prices=prices, models=[ModelUse("gpt-4o-mini", "openai")])
    found.expected.nano_usd, found.p90.nano_usd, found.worst.nano_usd, found.confidence, found.basis
    shortfalls(found, await budget.standing(ports, site))          the limits that it may not fit

    PastRun ── its calls at today's prices, their prompts longer or shorter by as much as this input is ─▶ one sample
    samples ─▶ mean (newer runs weigh more) = expected;  nine in ten = p90;  most calls seen, each at its worst = worst

A history is plain data: a server reads it from its ledger (`History`), a program keeps its own. Without one, the input
and defaults have to do: `confidence` is then `none`, and `basis` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Final, Literal, Protocol, cast

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.messages.utils import count_tokens_approximately

from waystation_guards.budget.estimates import Estimate, estimate
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.standing import Standing
from waystation_guards.ports import Unit

Confidence = Literal["none", "low", "medium", "high"]

_HALF_LIFE: Final = 50
"""Runs after which a run weighs half as much: graphs and their prompts change."""
_FEW: Final = 5
_MANY: Final = 30
"""Runs below which confidence is low, and from which it may be high."""
_SPREAD: Final = 1.0
"""The standard deviation, in means, above which confidence is not high: runs of this graph differ too much."""
_CALLS: Final = {"expected": 1, "p90": 3, "worst": 10}
"""Calls of each model in a run of which nothing is known: an answer, two rounds of tools before it, a long loop."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model that a graph uses. `max_tokens`: the most it may answer with, where the graph says so."""

    name: str
    provider: str = ""
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PastCall:
    """A model call of a past run, as the ledger has it."""

    model: str
    provider: str
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int | None = None
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class PastRun:
    """A past run: its model calls, its tool calls, and `tokens_of` its input; None where that is not known."""

    calls: Sequence[PastCall]
    tool_calls: int = 0
    input_tokens: int | None = None


class History(Protocol):
    """Where past runs come from: the newest first, at most so many, of a graph or of one of its assistants."""

    async def runs(self, *, tenant: str, graph: str, assistant: str = "", limit: int = 200) -> Sequence[PastRun]: ...


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a run comes to. `nano_usd` is None where a model has no price; `seconds` are those of model calls."""

    nano_usd: int | None
    tokens: int
    model_calls: int
    tool_calls: int = 0
    seconds: float = 0.0

    def of(self, unit: Unit) -> float | None:
        """The amount in a limit's unit; None where it is not known."""
        if unit == "usd":
            return None if self.nano_usd is None else self.nano_usd / 1_000_000_000
        return float(getattr(self, unit))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will come to. `runs`: how many past runs it is made of. `basis`: a sentence for people."""

    expected: Amounts
    p90: Amounts
    worst: Amounts
    confidence: Confidence
    basis: str
    runs: int
    input_tokens: int
    unpriced: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As endpoints and commands show it; amounts of money in dollars."""
        named = {"expected": self.expected, "p90": self.p90, "worst": self.worst}
        return {
            **{name: _shown(amounts) for name, amounts in named.items()},
            "confidence": self.confidence,
            "basis": self.basis,
            "runs": self.runs,
            "input_tokens": self.input_tokens,
            "unpriced": list(self.unpriced),
        }


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A limit that has less left than the run may need; both in the limit's unit."""

    limit: Limit
    left: float
    needed: float


def tokens_of(input: Any) -> int:
    """The tokens of a run's input, counted approximately: messages as models see them, anything else as JSON."""
    if input is None:
        return 0
    if isinstance(input, Mapping):
        given = cast("Mapping[str, Any]", input)
        rest = {name: value for name, value in given.items() if name != "messages"}
        return _messages(given.get("messages")) + (_text(rest) if rest else 0)
    return _messages(input) if isinstance(input, list) else _text(input)


def forecast(
    input_tokens: int,
    *,
    history: Sequence[PastRun] = (),
    prices: Prices,
    models: Sequence[ModelUse] = (),
) -> Forecast:
    """What a run with so many tokens of input will come to.

    `history`: runs of the same graph, the newest first; those without model calls count too. `models`: what the graph
    uses, where nothing is known of its runs.
    """
    if not history:
        return _without_history(input_tokens, prices, models)
    samples = [_sample(run, input_tokens, prices) for run in history]
    unpriced = sorted({call.model for run in history for call in run.calls if _cost(call, 0, prices) is None})
    return Forecast(
        expected=_mean(samples),
        p90=_quantile(samples, 0.9),
        worst=_worst(history, samples, input_tokens, prices),
        confidence=_confidence(samples),
        basis=_basis(history, unpriced),
        runs=len(history),
        input_tokens=input_tokens,
        unpriced=tuple(unpriced),
    )


def shortfalls(found: Forecast, standings: Sequence[Standing]) -> list[Shortfall]:
    """The limits that nine of ten such runs fit only if nothing else is open, or not at all."""
    short: list[Shortfall] = []
    for standing in standings:
        needed = found.p90.of(standing.limit.unit)
        left = max(0.0, standing.left - standing.held)
        if needed is not None and needed > left:
            short.append(Shortfall(standing.limit, left, needed))
    return short


def _without_history(tokens: int, prices: Prices, models: Sequence[ModelUse]) -> Forecast:
    calls = [
        estimate(prices, model=one.name, provider=one.provider, prompt_tokens=tokens, max_tokens=one.max_tokens)
        for one in models
    ]
    unpriced = sorted({one.name for one, call in zip(models, calls, strict=True) if call.nano_usd is None})
    basis = "no past runs of this graph are known; counted from the input" + (
        f", with {_CALLS['expected']} call of each model expected, {_CALLS['p90']} in nine of ten runs, "
        f"{_CALLS['worst']} at worst"
        if models
        else ", without a price: its models are not known"
    )
    return Forecast(
        expected=_defaults(calls, _CALLS["expected"], worst=False),
        p90=_defaults(calls, _CALLS["p90"], worst=False),
        worst=_defaults(calls, _CALLS["worst"], worst=True),
        confidence="none",
        basis=basis + _without_price(unpriced),
        runs=0,
        input_tokens=tokens,
        unpriced=tuple(unpriced),
    )


def _defaults(calls: Sequence[Estimate], times: int, *, worst: bool) -> Amounts:
    costs = [call.worst_nano_usd if worst else call.nano_usd for call in calls]
    known = [cost for cost in costs if cost is not None]
    tokens = sum(call.worst_tokens if worst else call.tokens for call in calls)
    cost = sum(known) * times if costs and len(known) == len(costs) else None
    return Amounts(cost, tokens * times, len(calls) * times)


def _sample(run: PastRun, tokens: int, prices: Prices) -> Amounts:
    """What a past run would have come to with this input."""
    more = 0 if run.input_tokens is None else tokens - run.input_tokens
    costs = [_cost(call, more, prices) for call in run.calls]
    known = [cost for cost in costs if cost is not None]
    return Amounts(
        sum(known) if len(known) == len(costs) else None,
        sum(max(0, call.input_tokens + more) + call.output_tokens for call in run.calls),
        len(run.calls),
        run.tool_calls,
        sum(call.milliseconds for call in run.calls) / 1000,
    )


def _cost(call: PastCall, more: int, prices: Prices) -> int | None:
    """A call at today's price; at what it was then, where the list no longer knows the model."""
    ins = max(0, call.input_tokens + more)
    usage = {"input_tokens": ins, "output_tokens": call.output_tokens, "total_tokens": ins + call.output_tokens}
    price = prices.cost(call.model, usage, provider=call.provider or None)
    return call.cost_nano_usd if price is None else price.nano_usd


def _worst(history: Sequence[PastRun], samples: Sequence[Amounts], tokens: int, prices: Prices) -> Amounts:
    """As many calls as any run made, each as dear as the dearest could be; never below what has been seen."""
    most = _quantile(samples, 1.0)
    dearest: list[int | None] = []
    for call in {(one.model, one.provider): one for run in history for one in run.calls}.values():
        longest = max(one.input_tokens for run in history for one in run.calls if one.model == call.model)
        longest += max((tokens - (run.input_tokens or tokens) for run in history), default=0)
        worst = estimate(
            prices, model=call.model, provider=call.provider, prompt_tokens=max(longest, tokens), max_tokens=None
        )
        dearest.append(worst.worst_nano_usd)
    known = [cost for cost in dearest if cost is not None]
    if most.nano_usd is None or len(known) < len(dearest):
        return most
    cost = max(most.nano_usd, most.model_calls * max(known, default=0))
    return Amounts(cost, most.tokens, most.model_calls, most.tool_calls, most.seconds)


def _mean(samples: Sequence[Amounts]) -> Amounts:
    weights = [0.5 ** (age / _HALF_LIFE) for age in range(len(samples))]

    def mean(values: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)

    costs = [one.nano_usd for one in samples if one.nano_usd is not None]
    return Amounts(
        ceil(mean(costs)) if len(costs) == len(samples) else None,
        ceil(mean([one.tokens for one in samples])),
        ceil(mean([one.model_calls for one in samples])),
        ceil(mean([one.tool_calls for one in samples])),
        mean([one.seconds for one in samples]),
    )


def _quantile(samples: Sequence[Amounts], part: float) -> Amounts:
    """The smallest amount that so many of the samples do not pass, each amount for itself."""

    def rank(values: Sequence[float]) -> float:
        return sorted(values)[max(0, ceil(part * len(values)) - 1)]

    costs = [one.nano_usd for one in samples if one.nano_usd is not None]
    return Amounts(
        int(rank(costs)) if len(costs) == len(samples) else None,
        int(rank([one.tokens for one in samples])),
        int(rank([one.model_calls for one in samples])),
        int(rank([one.tool_calls for one in samples])),
        rank([one.seconds for one in samples]),
    )


def _confidence(samples: Sequence[Amounts]) -> Confidence:
    if len(samples) < _FEW:
        return "low"
    amounts = [one.tokens if one.nano_usd is None else one.nano_usd for one in samples]
    mean = sum(amounts) / len(amounts)
    spread = sqrt(sum((one - mean) ** 2 for one in amounts) / len(amounts))
    return "high" if len(samples) >= _MANY and spread <= _SPREAD * mean else "medium"


def _basis(history: Sequence[PastRun], unpriced: Sequence[str]) -> str:
    scaled = sum(run.input_tokens is not None for run in history)
    runs = f"the last {len(history)} runs of this graph" if len(history) > 1 else "the last run of this graph"
    inputs = "for an input of this length" if scaled else "whatever the length of the input"
    if 0 < scaled < len(history):
        inputs += f" where theirs is known ({scaled})"
    return f"{runs} at today's prices, {inputs}{_without_price(unpriced)}"


def _without_price(unpriced: Sequence[str]) -> str:
    return f"; nobody knows the price of {', '.join(unpriced)}" if unpriced else ""


def _messages(given: Any) -> int:
    if given is None:
        return 0
    try:
        messages: list[BaseMessage] = convert_to_messages(cast("Any", given if isinstance(given, list) else [given]))
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return _text(given)
    return count_tokens_approximately(messages)


def _text(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return ceil(len(text) / 4)


def _shown(amounts: Amounts) -> dict[str, Any]:
    return {
        "usd": amounts.of("usd"),
        "tokens": amounts.tokens,
        "model_calls": amounts.model_calls,
        "tool_calls": amounts.tool_calls,
        "seconds": round(amounts.seconds, 3),
    }
