"""What `waystation estimate` does: asks a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import httpx

from waystation.cli.failures import CommandError, UsageError
from waystation.cli.terminal import say

_ANSWER_S = 30.0


def run(url: str, *, assistant: str, text: str, thread: str | None, key: str | None) -> None:
    """Print what a run will come to.

    Raises:
        UsageError: the input is no JSON, the address none, or the key cannot be sent. CommandError: the server does
            not answer, or refuses.
    """
    wish = {"assistant_id": assistant, "input": _input(text), "thread_id": thread}
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError("--key may hold printable ASCII only")
    headers = {"x-api-key": key} if key else {}
    try:
        answer = httpx.post(f"{url.rstrip('/')}/guards/estimate", json=wish, headers=headers, timeout=_ANSWER_S)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(f"--url {url}: {error}") from None
    except httpx.HTTPError as error:
        raise CommandError(f"{url} does not answer: {error}") from None
    if answer.status_code != 200:
        raise CommandError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
    _show(answer.json())


def _show(found: dict[str, Any]) -> None:
    for name in ("expected", "p90", "worst"):
        amounts = cast("dict[str, Any]", found[name])
        cost = "unknown" if amounts["usd"] is None else f"{amounts['usd']:.6f} $"
        calls = f"{amounts['model_calls']} model and {amounts['tool_calls']} tool calls"
        say(f"{name:<9} {cost:>14}  {amounts['tokens']:>9} tokens  {calls}")
    say(f"confidence {found['confidence']}: {found['basis']}")
    for limit in cast("list[dict[str, Any]]", found["limits"]):
        whose = f"{limit['scope']} {limit['name']}".strip()
        verdict = "fits" if limit["fits"] else "may not fit"
        say(f"{verdict}: {limit['left']:g} of {limit['limit']:g} {limit['unit']} left per {whose}")


def _input(text: str) -> Any:
    try:
        given = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return json.loads(given)
    except (OSError, ValueError) as error:
        raise UsageError(f"--input: {error}") from None
