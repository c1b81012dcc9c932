"""Errors in the shape that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.

`OpenAIRouter` is the router of everything under /v1: what its routes raise is answered that way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi.routing import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from waystation.api.dependencies import json_response
from waystation.api.failures import answer_to
from waystation.api.routing import Operation

_FIELD: Final = re.compile(r"^(?:(?:body|query)\.)?([a-z_][\w.]{0,200}?)(?:\.(?:str|list\[[^:]*))?: ")
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
NO_RETRY: Final = {"x-should-retry": "false"}
"""What keeps OpenAI's clients from sending a request again: a run that failed once is paid already."""

_KEPT_HEADERS: Final = frozenset({"retry-after", "www-authenticate"})


class OpenAIErrorDetail(BaseModel):
    """What went wrong. `param` is the member of the request that is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """The body of every answer that is not a success."""

    error: OpenAIErrorDetail


class OpenAIOperation(Operation):
    """An operation whose errors have OpenAI's shape."""

    def failed(self, error: Exception) -> Response:
        return translated(answer_to(error))


class OpenAIRouter(APIRouter):
    """A router whose routes are OpenAI operations."""

    def __init__(self, *, tags: list[str]) -> None:
        responses = openai_errors(400, 422)
        super().__init__(tags=list(tags), route_class=OpenAIOperation, responses=responses, redirect_slashes=False)


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer with these errors."""
    return {status: {"model": OpenAIError} for status in statuses}


def failed(error: Exception) -> Response:
    """The answer for any error; what nobody expected is raised again, for the request's log."""
    answer = answer_to(error)
    if answer.status_code == 500:
        raise error
    return translated(answer)


def translated(answer: Response) -> Response:
    """An error answer of ours in OpenAI's shape. Their status for a request that is not in order is 400."""
    if answer.status_code == 500:
        return openai_error(500, "Internal Server Error", code="internal_error", headers=NO_RETRY)
    ours = orjson.loads(bytes(answer.body))
    code: str = ours.get("code", "http_error")
    status = 400 if code == "invalid_request" else answer.status_code
    headers = {name: value for name, value in answer.headers.items() if name in _KEPT_HEADERS}
    return openai_error(status, ours["detail"], code=_CODES.get(status, code), headers=headers)


def openai_error(
    status: int, message: str, *, code: str | None, param: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error. Its `param` is the field that the message begins with, if it begins with one."""
    return json_response(error_body(status, message, code=code, param=param), status_code=status, headers=headers)


def error_body(status: int, message: str, *, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The body of an error, also inside of a stream."""
    named = _FIELD.match(message)
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param or (named[1] if named else None), "code": code}}
