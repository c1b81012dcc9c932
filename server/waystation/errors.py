"""Everything that may go wrong towards a client, drawn once.

WaystationError                 status  code
├── InvalidRequest              422     invalid_request
│   └── RunFailed               422     run_failed       (of a request whose answer is the run's)
├── BadRequest                  400     bad_request
├── Unauthorized                401     unauthorized
├── Forbidden                   403     forbidden
├── NotFound                    404     not_found
│   └── ModelNotFound           404     model_not_found
├── Conflict                    409     conflict
│   └── ThreadBusy              409     thread_busy
├── PayloadTooLarge             413     payload_too_large
├── TooManyRequests             429     too_many_requests
├── NotSupported                501     not_supported
├── Unavailable                 503     unavailable
├── Refused                     any     refused          (a rule of the project chose the status)
│   └── Killed                  403/503 killed           (the kill switch)
├── SlowReader                  –       slow_reader      (a reader that fell behind loses its connection)
└── ConfigError                 –       config_error     (stops the start)

A message may be shown to a stranger: it names the field or the thing, what was wrong and what was expected, and never
carries a user's data or an exception's text from inside a graph.
"""

from __future__ import annotations

from typing import ClassVar


class WaystationError(Exception):
    """Base of all errors with a meaning for clients. `status` is HTTP's, `code` stable and for machines."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


class InvalidRequest(WaystationError):
    """The request does not have the shape the operation asks for; the message names the field."""

    status = 422
    code = "invalid_request"


class RunFailed(InvalidRequest):
    """The run that was to answer the request failed. Not a 5xx: clients would send it, and pay for it, again."""

    code = "run_failed"


class BadRequest(WaystationError):
    """The request is well-formed and makes no sense here."""

    status = 400
    code = "bad_request"


class Unauthorized(WaystationError):
    """No valid credentials."""

    status = 401
    code = "unauthorized"


class Forbidden(WaystationError):
    """Valid credentials that do not allow this."""

    status = 403
    code = "forbidden"


class NotFound(WaystationError):
    """No such thing, or not visible to the caller."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No assistant that can be chatted with has this name."""

    code = "model_not_found"


class Conflict(WaystationError):
    """The thing's present state forbids it."""

    status = 409
    code = "conflict"


class ThreadBusy(Conflict):
    """The thread has a pending or running run."""

    code = "thread_busy"


class PayloadTooLarge(WaystationError):
    """The body is larger than the server takes."""

    status = 413
    code = "payload_too_large"


class TooManyRequests(WaystationError):
    """Over a limit; `Retry-After` says when to come back."""

    status = 429
    code = "too_many_requests"


class NotSupported(WaystationError):
    """Known to the protocol and not offered by this server."""

    status = 501
    code = "not_supported"


class Unavailable(WaystationError):
    """Overloaded or a dependency is away; `Retry-After` says when to come back."""

    status = 503
    code = "unavailable"


class Refused(WaystationError):
    """A rule of the project said no, with a status of its choice."""

    code = "refused"

    def __init__(self, chosen_status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, headers=headers)
        self.chosen_status = chosen_status


class Killed(Refused):
    """The kill switch is on for the caller, or for what they want to run."""

    code = "killed"


class SlowReader(WaystationError):
    """A reader of a stream fell behind its buffer and is disconnected; the run goes on."""

    code = "slow_reader"


class ConfigError(WaystationError):
    """The configuration cannot be used. The message names the key, the value and what was expected."""

    code = "config_error"
