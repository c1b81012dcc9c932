"""What a call costs, by the library and by a file of the operator's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waystation_guards.budget.pricing import Prices


def usage(input_tokens: int, output_tokens: int, *, ins: Any = None, outs: Any = None) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        **({"input_token_details": ins} if ins else {}),
        **({"output_token_details": outs} if outs else {}),
    }


def cost(model: str, used: dict[str, Any], *, provider: str | None = None, prices: Prices | None = None) -> int | None:
    price = (prices or Prices()).cost(model, used, provider=provider)
    return None if price is None else price.nano_usd


def listed(tmp_path: Path, models: dict[str, Any]) -> Prices:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"models": models}))
    return Prices.load(file)


def test_tokens_read_from_the_cache_cost_less() -> None:
    plain, cached = usage(1000, 100), usage(1000, 100, ins={"cache_read": 200})
    # gpt-4o-mini: 0.15, 0.6 and 0.075 dollars per million
    assert cost("gpt-4o-mini", plain, provider="openai") == 1000 * 150 + 100 * 600
    assert cost("gpt-4o-mini", cached, provider="openai") == 800 * 150 + 200 * 75 + 100 * 600


def test_what_is_kept_for_an_hour_in_anthropics_cache_costs_more_than_what_is_kept_for_minutes() -> None:
    # LangChain leaves cache_creation at 0 where it knows how long each is kept.
    minutes = usage(1000, 0, ins={"cache_creation": 0, "ephemeral_5m_input_tokens": 1000})
    hour = usage(1000, 0, ins={"cache_creation": 0, "ephemeral_1h_input_tokens": 1000})
    plain = usage(1000, 0, ins={"cache_creation": 1000})
    # claude-sonnet-4-5: 3 dollars per million, a quarter more for minutes, twice as much for an hour
    assert cost("claude-sonnet-4-5", minutes, provider="anthropic") == 3_750_000
    assert cost("claude-sonnet-4-5", plain, provider="anthropic") == 3_750_000
    assert cost("claude-sonnet-4-5", hour, provider="anthropic") == 6_000_000


def test_kinds_of_a_service_tier_are_kinds(tmp_path: Path) -> None:
    prices = listed(tmp_path, {"m": {"input": 1, "output": 10, "cache_read": 0.1, "reasoning": 20}})
    used = usage(100, 30, ins={"priority_cache_read": 40, "priority": 60}, outs={"priority_reasoning": 20})
    assert cost("m", used, prices=prices) == 60 * 1000 + 40 * 100 + 10 * 10_000 + 20 * 20_000


def test_the_file_prices_what_is_kept_for_an_hour(tmp_path: Path) -> None:
    rates = {"input": 1, "output": 1, "cache_write": 2, "cache_write_1h": 4}
    prices = listed(tmp_path, {"m": rates})
    used = usage(100, 0, ins={"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 20})
    assert cost("m", used, prices=prices) == 50 * 1000 + 30 * 2000 + 20 * 4000


def test_a_model_that_nobody_knows_has_no_price() -> None:
    assert cost("a-model-of-our-own", usage(10, 10)) is None


def test_a_known_model_behind_an_unknown_provider_is_priced_by_its_name() -> None:
    assert cost("gpt-4o-mini", usage(1000, 0), provider="our-gateway") == 150_000


def test_langchain_names_of_providers_are_understood() -> None:
    assert cost("gpt-4o", usage(1000, 0), provider="azure_openai") == 2_500_000


def test_details_that_exceed_their_total_are_priced_as_the_total() -> None:
    assert cost("gpt-4o-mini", usage(10, 1, ins={"cache_read": 500}), provider="openai") == 10 * 150 + 600


def test_the_file_wins_and_its_kinds_have_prices_of_their_own(tmp_path: Path) -> None:
    rates = {"input": 1, "output": 10, "cache_read": 0.1, "reasoning": 20}
    prices = listed(tmp_path, {"gpt-4o-mini": rates})
    used = usage(100, 30, ins={"cache_read": 40, "audio": 10}, outs={"reasoning": 20})
    expected = 50 * 1000 + 40 * 100 + 10 * 1000 + 10 * 10_000 + 20 * 20_000
    assert cost("gpt-4o-mini", used, provider="openai", prices=prices) == expected


def test_the_version_names_the_file(tmp_path: Path) -> None:
    one = listed(tmp_path, {"m": {"input": 1, "output": 1}}).cost("m", usage(1, 1))
    other = listed(tmp_path, {"m": {"input": 2, "output": 1}}).cost("m", usage(1, 1))
    assert one is not None
    assert other is not None
    assert one.version != other.version
    assert "genai-prices" in one.version


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"m": {"input": 1}}, "m: output is missing"),
        ({"m": {"input": 1, "output": "much"}}, "m: dollars per million"),
        ({"m": {"input": -1, "output": 1}}, "m: no price is below zero"),
        ({"m": {"input": 1, "output": 1, "cached": 1}}, "m: cached is not one of"),
        (7, "an object with the member `models`"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, models: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        listed(tmp_path, models)


@pytest.mark.parametrize(("model", "provider"), [("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic")])
@pytest.mark.parametrize(("ins", "outs"), [(0, 0), (1, 0), (1000, 500), (12_345, 8_192)])
def test_what_is_expected_is_what_it_will_cost(model: str, provider: str, ins: int, outs: int) -> None:
    expected = Prices().expected(model, ins, outs, provider=provider)
    exact = cost(model, usage(ins, outs), provider=provider)
    assert expected is not None
    assert exact is not None
    assert abs(expected - exact) <= 1


def test_of_a_model_without_a_price_nothing_is_expected() -> None:
    assert Prices().expected("a-model-of-our-own", 10, 10) is None
