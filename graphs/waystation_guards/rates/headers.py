"""What providers say of their limits in the headers of their answers and refusals. (`retry_after` reads how long a
refusal asks to wait.)

    OpenAI, Azure and what speaks like them   x-ratelimit-{limit,remaining,reset}-{requests,tokens}
    Anthropic                                 anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,…}

Formats: https://platform.openai.com/docs/guides/rate-limits and https://docs.anthropic.com/en/api/rate-limits. Times
are compared with the answer's own `date`, not with this machine's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, cast

Kind = Literal["requests", "tokens", "input_tokens", "output_tokens"]

MOST_S: Final = 3600.0
"""No provider is believed that asks for a longer pause."""

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Reported:
    """How one of a provider's limits stands after a call. `reset_s`: until nothing of it counts as used."""

    kind: Kind
    limit: int | None
    remaining: int
    reset_s: float | None


def reported(headers: Mapping[str, str]) -> list[Reported]:
    """The limits that an answer's headers report."""
    lower = {name.lower(): value for name, value in headers.items()}
    return [*_like_openai(lower), *_like_anthropic(lower)]


def headers_of(error: BaseException | None) -> Mapping[str, str]:
    """The headers of the answer that an error, or what caused it, stands for; empty where there was none."""
    while error is not None:
        found = getattr(getattr(error, "response", None), "headers", None)
        if isinstance(found, Mapping):
            return cast("Mapping[str, str]", found)
        error = error.__cause__
    return {}


def headers_in(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    """The headers in an answer's `response_metadata`, where its model was told to include them."""
    found = metadata.get("headers")
    return cast("Mapping[str, str]", found) if isinstance(found, Mapping) else {}


def _like_openai(headers: Mapping[str, str]) -> Iterator[Reported]:
    kinds: tuple[Kind, ...] = ("requests", "tokens")
    for kind in kinds:
        if (remaining := _whole(headers.get(f"x-ratelimit-remaining-{kind}"))) is not None:
            reset = _span(headers.get(f"x-ratelimit-reset-{kind}"))
            yield Reported(kind, _whole(headers.get(f"x-ratelimit-limit-{kind}")), remaining, reset)


def _like_anthropic(headers: Mapping[str, str]) -> Iterator[Reported]:
    kinds: tuple[Kind, ...] = ("requests", "tokens", "input_tokens", "output_tokens")
    for kind in kinds:
        name = f"anthropic-ratelimit-{kind.replace('_', '-')}"
        if (remaining := _whole(headers.get(f"{name}-remaining"))) is not None:
            reset = _until(headers.get(f"{name}-reset"), headers)
            yield Reported(kind, _whole(headers.get(f"{name}-limit")), remaining, reset)


def _span(text: str | None) -> float | None:
    """`6m0s`, `20ms` or plain seconds."""
    if (seconds := _number(text)) is not None:
        return _within(seconds)
    parts = _PART.findall(text or "")
    return _within(sum(float(number) * _SECONDS[unit] for number, unit in parts)) if parts else None


def _until(text: str | None, headers: Mapping[str, str]) -> float | None:
    """Seconds until a date of HTTP or RFC 3339, from when the answer was sent."""
    moment = _moment(text)
    if moment is None:
        return None
    return _within((moment - (_moment(headers.get("date")) or datetime.now(UTC))).total_seconds())


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _number(text: str | None) -> float | None:
    """A number that is not below zero; None for anything else, `nan` and `inf` too."""
    text = (text or "").strip()
    return float(text) if len(text) < 20 and re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else None


def _within(seconds: float) -> float:
    return min(max(0.0, seconds), MOST_S)
