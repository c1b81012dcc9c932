"""What errors mean of clients that are not installed, or that say it in ways of their own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from langchain_core.exceptions import ContextOverflowError, ModelRateLimitError
from langchain_core.messages import AIMessage

from waystation_guards.errors import BudgetExceeded, StreamBroken
from waystation_guards.providers.errors import class_of_answer, classify

REQUEST = httpx.Request("POST", "http://127.0.0.1/")


class StatusError(Exception):
    """Whatever carries a status."""

    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status_code = status
        self.body = body
        self.response = httpx.Response(status, headers=headers, request=REQUEST)


class ClientError(Exception):
    """botocore's."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}


class ResourceExhausted(Exception):
    """Google's."""

    code = 429


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "bad_request"),
        (401, "auth"),
        (402, "auth"),
        (403, "auth"),
        (404, "auth"),
        (408, "timeout"),
        (409, "overload"),
        (413, "context_window"),
        (418, "bad_request"),
        (422, "bad_request"),
        (429, "rate_limit"),
        (500, "overload"),
        (502, "overload"),
        (503, "overload"),
        (504, "timeout"),
        (520, "overload"),
        (529, "overload"),
    ],
)
def test_a_status_alone_is_enough(status: int, kind: str) -> None:
    failure = classify(StatusError(status))
    assert (failure.kind, failure.status, failure.billed) == (kind, status, "no")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": "context_length_exceeded", "message": "too long"}}, "context_window"),
        ({"error": {"message": "input length and `max_tokens` exceed context limit: 1 > 0"}}, "context_window"),
        ({"message": "ContextWindowExceededError: x"}, "context_window"),
        ({"error": {"code": "content_filter", "message": "no"}}, "content_policy"),
        ({"error": {"code": "content_policy_violation", "message": "no"}}, "content_policy"),
        ({"error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}, "auth"),
        ({"error": {"type": "invalid_request_error", "message": "temperature"}}, "bad_request"),
        ("<html>", "bad_request"),
        (None, "bad_request"),
        ({"error": "text"}, "bad_request"),
        ({"error": {"code": 17, "message": None}}, "bad_request"),
    ],
)
def test_a_400_is_what_its_body_says(body: Any, kind: str) -> None:
    assert classify(StatusError(400, body)).kind == kind


@pytest.mark.parametrize(
    ("error", "kind", "billed"),
    [
        (httpx.ConnectError("no"), "connection", "no"),
        (httpx.ConnectTimeout("no"), "connection", "no"),
        (httpx.PoolTimeout("no"), "connection", "no"),
        (httpx.ReadTimeout("no"), "timeout", "answer"),
        (httpx.ReadError("no"), "connection", "no"),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), "connection", "no"),
        (
            httpx.RemoteProtocolError("peer closed connection without sending complete message body (incomplete)"),
            "connection",
            "answer",
        ),
        (ConnectionRefusedError(), "connection", "no"),
        (TimeoutError(), "timeout", "answer"),
        (json.JSONDecodeError("no", "", 0), "malformed", "answer"),
        (ModelRateLimitError("no"), "rate_limit", "input"),
        (ContextOverflowError("no"), "context_window", "input"),
        (ClientError("ThrottlingException", 429), "rate_limit", "no"),
        (ClientError("ServiceUnavailableException", 503), "overload", "no"),
        (ClientError("AccessDeniedException", 403), "auth", "no"),
        (ResourceExhausted("no"), "rate_limit", "no"),
        (StreamBroken("no"), "connection", "input"),
        (BudgetExceeded("no"), "unknown", "no"),
        (ValueError("a program's own"), "unknown", "no"),
        (ExceptionGroup("both", [StatusError(429), ValueError("no")]), "rate_limit", "no"),
        (asyncio.CancelledError(), "unknown", "input"),
    ],
    ids=repr,
)
def test_an_error_without_a_body_is_told_by_its_class(error: BaseException, kind: str, billed: str) -> None:
    failure = classify(error)
    assert (failure.kind, failure.billed) == (kind, billed)


def test_a_timeout_before_the_request_was_sent_is_one_of_the_connection() -> None:
    class APITimeoutError(Exception): ...

    wrapped = APITimeoutError("Request timed out.")
    wrapped.__cause__ = httpx.ConnectTimeout("no")
    assert classify(wrapped).kind == "connection"


def test_an_error_that_is_its_own_cause_is_classified_all_the_same() -> None:
    error = ValueError("round and round")
    error.__context__ = ValueError("and")
    error.__context__.__context__ = error
    assert classify(error).kind == "unknown"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2026-11-21T12:00:09Z",
                "date": "Sat, 21 Nov 2026 12:00:00 GMT",
            },
            9.0,
        ),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert classify(StatusError(429, headers=headers)).retry_after_s == seconds


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 20ms. Visit", 0.02),
        ("Please try again in 1m2s.", 62.0),
        ("Please retry after 22 seconds.", 22.0),
        ("Try again later.", None),
    ],
)
def test_the_wait_is_read_from_words_where_no_header_says_it(words: str, seconds: float | None) -> None:
    found = classify(StatusError(429, {"error": {"message": words}})).retry_after_s
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"finish_reason": "stop"}, None),
        ({"stop_reason": "end_turn"}, None),
        ({"finish_reason": "content_filter"}, "content_policy"),
        ({"stop_reason": "refusal"}, "content_policy"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_policy"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, None),
        ({"stop_reason": "model_context_window_exceeded"}, "context_window"),
        ({}, None),
    ],
)
def test_a_failure_that_arrives_as_an_answer_is_told_by_its_reason(told: dict[str, Any], kind: str | None) -> None:
    assert class_of_answer(AIMessage("no", response_metadata=told)) == kind
