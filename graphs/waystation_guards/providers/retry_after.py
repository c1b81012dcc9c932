"""How long a provider asks to wait, in a header or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Final, cast

_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_RESETS: Final = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)
_WORDS: Final = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?\s*(?:ms|[hms])\w*\s*)+)", re.IGNORECASE)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[hms])", re.IGNORECASE)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def retry_after_s(error: BaseException, text: str = "") -> float | None:
    """Seconds to wait as the provider asks for; never below zero. None if it asks for nothing.

    Looks at `Retry-After-Ms`, Azure's `x-ms-retry-after-ms`, `Retry-After` (seconds or a date, held against the
    answer's own `Date`), then at the reset times of limits of which nothing remains, then into the message.
    """
    headers = _headers(error)
    for name in _MILLISECONDS:
        if (amount := _amount(headers.get(name))) is not None:
            return amount / 1000
    if (asked := headers.get("retry-after")) is not None:
        return _amount(asked) if _amount(asked) is not None else _until(asked, headers)
    resets = [
        _reset(headers[reset], headers) for left, reset in _RESETS if headers.get(left) == "0" and reset in headers
    ]
    if known := [seconds for seconds in resets if seconds is not None]:
        return max(known)
    return _span(found[1]) if (found := _WORDS.search(text)) else None


def _headers(error: BaseException) -> dict[str, str]:
    response = getattr(error, "response", None)
    found: Any = getattr(response, "headers", None)
    if isinstance(response, Mapping):  # botocore's
        metadata: Any = cast("Mapping[str, Any]", response).get("ResponseMetadata")
        found = metadata.get("HTTPHeaders") if metadata else None
    items = cast("Mapping[Any, Any]", found).items() if isinstance(found, Mapping) else ()
    return {str(name).lower(): str(value) for name, value in items}


def _amount(value: str | None) -> float | None:
    try:
        amount = float(value) if value is not None else None
    except ValueError:
        return None
    return max(0.0, amount) if amount is not None and isfinite(amount) else None


def _reset(value: str, headers: Mapping[str, str]) -> float | None:
    """`120ms`, `6m0s` (OpenAI), `2026-11-21T18:00:00Z` (Anthropic) or plain seconds."""
    if (amount := _amount(value)) is not None:
        return amount
    return _span(value) if _PART.match(value) and "T" not in value else _until(value, headers)


def _until(value: str, headers: Mapping[str, str]) -> float | None:
    moment = _moment(value)
    if moment is None:
        return None
    now = _moment(headers.get("date", "")) or datetime.now(UTC)  # the provider's clock where it tells the time
    return max(0.0, (moment - now).total_seconds())


def _moment(value: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(value)
        except (ValueError, TypeError):
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None


def _span(value: str) -> float:
    return sum(float(amount) * _SECONDS[unit.lower()] for amount, unit in _PART.findall(value))
