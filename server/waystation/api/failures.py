"""What a client gets instead of an answer: every error that reaches the frame, in the protocol's shape."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import DataError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from waystation.api.dependencies import json_response
from waystation.errors import Refused, WaystationError
from waystation_db.errors import DatabaseUnavailable, SealingFailed, SearchesSealed, Undecipherable

RETRY_AFTER_S = 2
"""What a client is told when Postgres is away; it is usually back after a restart by then."""


def answer_to(error: BaseException) -> Response:
    """The response for an error; 500 for what nobody expected."""
    match _innermost(error):
        case Refused() as known:
            return _detail(known.chosen_status, known.message, known.headers, code=known.code)
        case WaystationError(status=status) as known if status != WaystationError.status:
            return _detail(status, known.message, known.headers, code=known.code)
        case DatabaseUnavailable():
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            return _detail(503, "The database is not available", retry, code="unavailable")
        case Undecipherable() as sealed:
            return _detail(409, str(sealed), {}, code="undecipherable")
        case SealingFailed() as failed:
            return _detail(400, str(failed), {}, code="encryption_failed")
        case SearchesSealed() as asked:
            return _detail(422, str(asked), {}, code="invalid_request")
        case DataError():
            # Our own checks come first; this is the net under them for values that only Postgres can judge.
            return _detail(422, "A value in the request cannot be stored or compared", {}, code="invalid_request")
        case HTTPException() as known:
            return _detail(known.status_code, known.detail, known.headers or {}, code="http_error")
        case _:
            return PlainTextResponse("Internal Server Error", status_code=500)


def _innermost(error: BaseException) -> BaseException:
    """The one error in groups of one, as task groups make them."""
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _innermost(inside[0]) if len(inside) == 1 else error


def not_here(allowed: frozenset[str]) -> Response:
    """No such path, or not with this method."""
    if not allowed:
        return json_response({"detail": "Not Found"}, status_code=404)
    headers = {"allow": ", ".join(sorted(allowed))}
    return json_response({"detail": "Method Not Allowed"}, status_code=405, headers=headers)


def _detail(status: int, message: str, headers: Mapping[str, str], *, code: str) -> Response:
    return json_response({"detail": message, "code": code}, status_code=status, headers=headers)
