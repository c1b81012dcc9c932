"""What the answers of a measured server say: the JSON that is needed, or why the run failed."""

from __future__ import annotations

import json
from typing import Any, Final, cast

import httpx

_ERROR_TEXT: Final = 120
"""Characters of an error that tell its kind; the rest is often an id."""


class RunFailed(Exception):
    """The server answered, and the answer is no success."""


def json_of(answer: httpx.Response) -> Any:
    """Raises RunFailed: a refusal, or no JSON."""
    if not answer.is_success:
        raise RunFailed(refusal(answer))
    try:
        return answer.json()
    except ValueError:
        raise RunFailed(f"{_asked(answer)} answered with no JSON: {answer.text[:_ERROR_TEXT]!r}") from None


def members_of(answer: httpx.Response) -> dict[str, Any]:
    """Raises RunFailed: as `json_of`, or no object."""
    found = json_of(answer)
    if not isinstance(found, dict):
        raise RunFailed(f"{_asked(answer)} answered with no JSON object: {answer.text[:_ERROR_TEXT]!r}")
    return cast("dict[str, Any]", found)


def member_of(answer: httpx.Response, name: str) -> str:
    """Raises RunFailed: as `members_of`, or it lacks that one."""
    found = members_of(answer)
    if name not in found:
        raise RunFailed(f"{_asked(answer)} answered without {name}: {answer.text[:_ERROR_TEXT]!r}")
    return str(found[name])


def _asked(answer: httpx.Response) -> str:
    return f"{answer.request.method} {answer.request.url.path}"


def check_values(values: Any) -> None:
    """Raises RunFailed: a run's values say that it failed."""
    error = cast("dict[str, Any]", values).get("__error__") if isinstance(values, dict) else None
    if error:
        raise RunFailed(f"run failed: {_error_text(error)}")


def error_in(text: str) -> str:
    """What the data of an error event says."""
    try:
        return _error_text(json.loads(text))
    except ValueError:
        return text[:_ERROR_TEXT]


def _error_text(error: Any) -> str:
    """`ValueError: boom`, where it has the platform's members."""
    text = str(error)
    parts = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    if "error" not in parts:
        return text[:_ERROR_TEXT]
    return ": ".join(str(parts[name]) for name in ("error", "message") if parts.get(name))[:_ERROR_TEXT]


def refusal(answer: httpx.Response) -> str:
    """Status and reason of an answer whose body was read."""
    if answer.is_redirect:
        return f"HTTP {answer.status_code}: it leads to {answer.headers.get('location', '')[:_ERROR_TEXT]!r}"
    try:
        detail: Any = answer.json()
        detail = cast("dict[str, Any]", detail).get("detail", detail) if isinstance(detail, dict) else detail
    except ValueError:
        detail = answer.text
    return f"HTTP {answer.status_code}: {str(detail)[:_ERROR_TEXT]}".rstrip(": ")


def told(error: Exception) -> str:
    """Why a run failed, in a line; equal reasons are to be equal texts."""
    return str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}".rstrip(": ")[:_ERROR_TEXT]
