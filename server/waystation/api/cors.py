"""Cross-origin rules: which browser pages may call. Starlette's own middleware wraps every send; this one is asked once
per answer and only when the request has an Origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

EXPOSED_HEADERS = ("x-pagination-total", "x-pagination-next", "content-location")
LIMIT_HEADERS = (
    *("retry-after", "ratelimit", "ratelimit-policy"),
    *("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
)
"""What pages may read besides, where requests are limited."""


@dataclass(frozen=True, slots=True)
class CorsRules:
    """What `http.cors` of the project says, or the default: any origin, any method."""

    allow_origins: Sequence[str] = ("*",)
    allow_methods: Sequence[str] = ("*",)
    allow_headers: Sequence[str] = ("*",)
    allow_credentials: bool = False
    allow_origin_regex: str | None = None
    expose_headers: Sequence[str] = EXPOSED_HEADERS
    max_age: int = 600


class Cors:
    """The rules, ready to be asked."""

    def __init__(self, rules: CorsRules) -> None:
        self._rules = CORSMiddleware(
            Starlette(),
            allow_origins=rules.allow_origins,
            allow_methods=rules.allow_methods,
            allow_headers=rules.allow_headers,
            allow_credentials=rules.allow_credentials,
            allow_origin_regex=rules.allow_origin_regex,
            expose_headers=rules.expose_headers,
            max_age=rules.max_age,
        )
        self._simple = [(k.lower().encode(), v.encode()) for k, v in self._rules.simple_headers.items()]
        self._fixed = self._rules.allow_all_origins and not self._rules.allow_credentials

    def preflight(self, headers: Headers) -> Response:
        """The answer to a browser that asks whether it may."""
        return self._rules.preflight_response(request_headers=headers)

    def headers_for(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """What an answer to a page of this origin carries."""
        if self._fixed:
            return self._simple
        if not self._rules.is_allowed_origin(origin=origin.decode("latin-1")):
            return self._simple
        name = b"access-control-allow-origin"
        return [*((k, v) for k, v in self._simple if k != name), (name, origin)]
