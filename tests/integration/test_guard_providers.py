"""Every fault of a provider, through every client and every way to call it: its class, and what the caller saw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from haste import within_its_time
from integration.provider_calls import CLIENTS, HOWS, KEY, QUICK, How, Outcome, matrix
from providers import FAULTS, FaultServer, Plan
from waystation_guards.errors import StreamBroken
from waystation_guards.providers.whole_streams import StreamTimeout

pytestmark = pytest.mark.anyio

STREAMS: Final = ("stream", "astream")
BEFORE: Final = "one two six "
"""What is shown of `one two six ten` when the fault comes after three tokens."""

CLASSES: Final = {
    "rate_limit": "rate_limit",
    "quota": "auth",
    "request_timeout": "timeout",
    "conflict": "overload",
    "server_error": "overload",
    "bad_gateway": "overload",
    "unavailable": "overload",
    "gateway_timeout": "timeout",
    "overloaded": "overload",
    "context": "context_window",
    "too_large": "context_window",
    "content_policy": "content_policy",
    "bad_request": "bad_request",
    "auth": "auth",
    "permission": "auth",
    "not_found": "auth",
    "reset": "connection",
    "wrong_type": "malformed",
}
"""Faults whose class is the same whichever way the model is called."""

MIDDLE: Final = {
    "cut": "connection",
    "reset_mid_stream": "connection",
    "malformed": "malformed",
    "error_event": "overload",
}
"""Faults in the middle of an answer."""

SILENT: Final = ("hang", "hang_mid_stream")
SUCCESSES: Final = ("ok", "refusal", "empty", "no_end", "no_finish", "truncated_tool")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv(KEY, "k")
    with FaultServer() as server:
        yield server


def test_every_fault_is_tested() -> None:
    assert {*CLASSES, *MIDDLE, *SILENT, *SUCCESSES} == FAULTS


async def test_an_answer_comes_with_its_usage_in_every_way(provider: FaultServer) -> None:
    outcomes = await matrix(provider, Plan("ok", cached=5, reasoning=7), tools=False)
    for one in outcomes.values():
        assert (one.kind, one.text) == ("answer", "one two six ten")
        assert one.answer is not None
        used = one.answer.usage_metadata
        assert used is not None
        assert (used["input_tokens"], used["output_tokens"]) == (6, 11)
        assert used.get("input_token_details", {}).get("cache_read") == 5
    assert provider.bill.output_tokens == 11 * len(outcomes)


@pytest.mark.parametrize("fault", CLASSES)
async def test_a_refused_request_has_its_class_and_costs_nothing(provider: FaultServer, fault: str) -> None:
    outcomes = await matrix(provider, fault)
    assert _kinds(outcomes) == {CLASSES[fault]}
    if fault != "wrong_type":
        assert {one.failure.billed for one in outcomes.values()} == {"no"}
        assert provider.settled().bill.nano_usd == 0
    assert {one.text for one in outcomes.values()} == {""}
    assert len(provider.requests) == len(outcomes), "a client tried again by itself"


async def test_a_refused_connection_has_its_class(provider: FaultServer) -> None:
    outcomes = await matrix(provider, "ok", urls=provider.refused)
    assert _kinds(outcomes) == {"connection"}
    assert {one.failure.billed for one in outcomes.values()} == {"no"}


@pytest.mark.parametrize("fault", MIDDLE)
async def test_a_fault_in_the_middle_has_its_class_after_what_was_shown(provider: FaultServer, fault: str) -> None:
    outcomes = await matrix(provider, fault)
    unclassed = [("anthropic", "invoke"), ("anthropic", "ainvoke")] if fault == "error_event" else []
    for case, one in outcomes.items():
        # An error in the body of a 200, which the client of Anthropic takes for a message without members.
        assert one.kind == ("malformed" if case in unclassed else MIDDLE[fault]), case
        assert one.text == (BEFORE if case[1] in STREAMS else ""), case


@pytest.mark.parametrize("fault", SILENT)
@within_its_time(6)
async def test_silence_is_a_timeout_and_tells_where(provider: FaultServer, fault: str) -> None:
    await matrix(provider, "ok")  # all that is slow the first time is not what is waited for
    provider.reset()
    outcomes = await matrix(provider, fault, timeouts=QUICK)
    assert _kinds(outcomes) == {"timeout"}
    for (_, how), one in outcomes.items():
        assert one.text == (BEFORE if fault == "hang_mid_stream" and how in STREAMS else "")
        if how in STREAMS:
            assert isinstance(one.error, StreamTimeout)
            assert one.error.phase == ("first_token" if fault == "hang" else "between_tokens")
            assert one.error.tokens == (0 if fault == "hang" else 3)
            assert one.failure.billed == "input"
    provider.settled()
    assert {seen.ended for seen in provider.requests} == {"aborted"}, "a connection was left open"


@pytest.mark.parametrize("fault", ["no_end", "no_finish", "truncated_tool"])
async def test_a_stream_that_ends_without_its_end_is_broken(provider: FaultServer, fault: str) -> None:
    outcomes = await matrix(provider, fault)
    for (_, how), one in outcomes.items():
        if how in STREAMS:
            assert isinstance(one.error, StreamBroken)
            assert one.kind == "connection"
        else:
            assert one.kind == "answer"


async def test_a_refusal_that_arrives_as_an_answer_is_told(provider: FaultServer) -> None:
    outcomes = await matrix(provider, "refusal")
    assert _kinds(outcomes) == {"content_policy"}


async def test_an_empty_answer_is_none_where_the_client_stumbles_over_it(provider: FaultServer) -> None:
    outcomes = await matrix(provider, "empty")
    errors = {case: one.kind for case, one in outcomes.items() if one.error is not None}
    stumbling = [(name, how) for name in ("chat completions", "azure") for how in ("invoke", "ainvoke")]
    assert errors == dict.fromkeys(stumbling, "malformed")
    assert {one.text for one in outcomes.values()} == {""}


@pytest.mark.parametrize(
    ("form", "asked", "expected"),
    [("seconds", 7.0, 7.0), ("milliseconds", 1.25, 1.25), ("date", 60.0, 60.0), ("seconds", None, None)],
)
@pytest.mark.parametrize("fault", ["rate_limit", "overloaded"])
async def test_what_a_provider_asks_to_wait_is_read(
    provider: FaultServer, fault: str, form: str, asked: float | None, expected: float | None
) -> None:
    plan = {"fault": fault, "retry_after_s": asked, "retry_after_as": form}
    outcomes = await matrix(provider, Plan.of(plan))
    for one in outcomes.values():
        found = one.failure.retry_after_s
        if expected is None:
            assert found is None
        else:
            # A date has whole seconds, and the client's clock goes on.
            assert found == pytest.approx(expected, abs=10.0 if form == "date" else 0.01)


def _kinds(outcomes: dict[tuple[str, How], Outcome]) -> set[str]:
    assert len(outcomes) == len(CLIENTS) * len(HOWS)
    return {one.kind for one in outcomes.values()}
