"""What a run will come to: from past runs of its graph, or from its input alone, and how sure that is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from waystation_guards.budget.forecasting import ModelUse, PastCall, PastRun, forecast, shortfalls, tokens_of
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.budget.standing import Standing

# 1 $ per thousand tokens in, 2 $ per thousand out.
PRICES = Prices({"m": Rates(Decimal(1000), Decimal(2000))})
DOLLAR = 1_000_000_000


def call(ins: int = 1000, outs: int = 500, *, model: str = "m", cost: int | None = None) -> PastCall:
    return PastCall(model, "", ins, outs, cost, milliseconds=200)


def run(*calls: PastCall, input_tokens: int | None = None, tool_calls: int = 0) -> PastRun:
    return PastRun(calls, tool_calls, input_tokens)


def test_runs_that_are_all_alike_are_expected_again() -> None:
    found = forecast(10, history=[run(call(), call(), tool_calls=1)] * 40, prices=PRICES)
    assert found.expected.nano_usd == found.p90.nano_usd == 4 * DOLLAR
    assert (found.expected.tokens, found.expected.model_calls, found.expected.tool_calls) == (3000, 2, 1)
    assert found.expected.seconds == pytest.approx(0.4)
    assert (found.confidence, found.runs) == ("high", 40)
    assert "the last 40 runs of this graph" in found.basis


def test_one_dear_run_of_twenty_is_in_the_worst_and_not_in_nine_of_ten() -> None:
    history = [run(call())] * 19 + [run(*[call()] * 10)]
    found = forecast(10, history=history, prices=PRICES)
    assert found.p90.nano_usd == 2 * DOLLAR
    assert found.expected.nano_usd is not None
    assert 2 * DOLLAR < found.expected.nano_usd < 4 * DOLLAR
    assert found.worst.nano_usd is not None
    assert found.worst.nano_usd >= 20 * DOLLAR
    assert found.worst.model_calls == 10


def test_newer_runs_weigh_more() -> None:
    cheap, dear = run(call(1000, 0)), run(call(9000, 0))
    newly_dear = forecast(10, history=[dear] * 50 + [cheap] * 50, prices=PRICES)
    newly_cheap = forecast(10, history=[cheap] * 50 + [dear] * 50, prices=PRICES)
    assert newly_dear.expected.nano_usd is not None
    assert newly_cheap.expected.nano_usd is not None
    assert newly_dear.expected.nano_usd > 5 * DOLLAR > newly_cheap.expected.nano_usd


def test_a_longer_input_makes_every_call_of_the_run_longer() -> None:
    history = [run(call(1000, 0), call(1200, 0), input_tokens=100)] * 10
    same = forecast(100, history=history, prices=PRICES)
    longer = forecast(600, history=history, prices=PRICES)
    assert same.expected.nano_usd == 2_200_000_000
    assert longer.expected.nano_usd == 3_200_000_000
    assert "for an input of this length" in longer.basis


def test_a_shorter_input_never_makes_a_prompt_of_less_than_nothing() -> None:
    found = forecast(0, history=[run(call(100, 0), input_tokens=5000)] * 5, prices=PRICES)
    assert found.expected.nano_usd == 0


def test_without_known_inputs_it_says_that_the_length_is_not_looked_at() -> None:
    history = [run(call())] * 5
    found = forecast(1_000_000, history=history, prices=PRICES)
    assert found.expected.nano_usd == 2 * DOLLAR
    assert "whatever the length of the input" in found.basis


def test_prices_are_todays_and_those_of_then_where_the_list_forgot_the_model() -> None:
    history = [run(call(cost=7), call(model="gone", cost=3 * DOLLAR))] * 5
    assert forecast(10, history=history, prices=PRICES).expected.nano_usd == 5 * DOLLAR


def test_a_model_without_any_price_makes_the_money_unknown_and_is_named() -> None:
    found = forecast(10, history=[run(call(), call(model="ours"))] * 5, prices=PRICES)
    assert (found.expected.nano_usd, found.p90.nano_usd, found.worst.nano_usd) == (None, None, None)
    assert found.expected.tokens == 3000
    assert found.unpriced == ("ours",)
    assert "nobody knows the price of ours" in found.basis


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([run(call())] * 4, "low"),
        ([run(call())] * 29, "medium"),
        ([run(call())] * 30, "high"),
        ([run(call(10, 0))] * 38 + [run(call(90_000, 0))] * 2, "medium"),
    ],
)
def test_confidence_grows_with_runs_and_falls_with_their_spread(runs: list[PastRun], says: str) -> None:
    assert forecast(10, history=runs, prices=PRICES).confidence == says


def test_without_history_the_input_and_defaults_count_and_that_is_said() -> None:
    found = forecast(1000, prices=PRICES, models=[ModelUse("m", max_tokens=1000)])
    assert found.expected.nano_usd == 2 * DOLLAR  # 1000 tokens in, 500 out
    assert found.p90.nano_usd == 6 * DOLLAR
    assert found.worst.nano_usd == 10 * (1_500_000_000 + 2_000_000_000)
    assert (found.confidence, found.runs) == ("none", 0)
    assert "no past runs of this graph are known" in found.basis


def test_without_history_and_models_only_the_input_is_known() -> None:
    found = forecast(1000, prices=PRICES)
    assert found.expected.nano_usd is None
    assert found.input_tokens == 1000
    assert "its models are not known" in found.basis


def test_the_three_amounts_are_in_order() -> None:
    history = [run(*[call(100 * n, 30)] * (1 + n % 4)) for n in range(1, 40)]
    found = forecast(10, history=history, prices=PRICES)
    for unit in ("usd", "tokens", "model_calls"):
        expected, p90, worst = found.expected.of(unit), found.p90.of(unit), found.worst.of(unit)
        assert expected is not None
        assert p90 is not None
        assert worst is not None
        assert expected <= p90 <= worst


def test_limits_that_have_less_left_are_named() -> None:
    found = forecast(10, history=[run(call())] * 5, prices=PRICES)
    tight, calls, wide = Limit(3, scope="user"), Limit(5, unit="model_calls"), Limit(100, scope="tenant")
    standings = [Standing(tight, spent=1, held=0.5), Standing(calls, spent=0, held=0), Standing(wide, 0, 0)]
    (short,) = shortfalls(found, standings)
    assert (short.limit, short.left, short.needed) == (tight, 1.5, 2.0)


@pytest.mark.parametrize(
    ("input", "least", "most"),
    [
        (None, 0, 0),
        ({"messages": [{"role": "user", "content": "x" * 400}]}, 100, 110),
        ({"messages": [("user", "x" * 400)]}, 100, 110),
        ({"messages": HumanMessage("x" * 400)}, 100, 110),
        ([HumanMessage("x" * 400)], 100, 110),
        ({"question": "x" * 400}, 100, 110),
        ("x" * 400, 100, 100),
        ({"messages": [{"no": "message"}]}, 1, 10),
        ({"messages": 7}, 1, 1),
    ],
)
def test_any_input_is_counted(input: Any, least: int, most: int) -> None:
    assert least <= tokens_of(input) <= most


def test_it_is_shown_in_dollars() -> None:
    shown = forecast(10, history=[run(call())], prices=PRICES).as_json()
    assert shown["expected"]["usd"] == 2.0
    assert shown["basis"].startswith("the last run of this graph at today's prices")
    assert shown["confidence"] == "low"
