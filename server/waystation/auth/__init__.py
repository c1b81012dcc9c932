"""Who calls, and what they may.

    request or WebSocket ──▶ Gate.authenticate ──▶ Principal, kept in the scope ──▶ caller_of(scope)
                                                        │
    use case: `await caller.may(resource, action, value)` ──▶ Rules: roles, the project's `on` handlers

`services.gate` is the gate of the process, or None where nobody has to show anything. The frame asks it for every
operation of ours but those tagged "System". Whoever serves something else in the same server (a project's own ASGI
application, a WebSocket) asks it the same way, for an `http` or a `websocket` scope:

    if services.gate is not None:
        receive = await services.gate.authenticate(scope, receive)   # raises a WaystationError: 401, 403, ...
    caller = caller_of(scope)                                        # ANONYMOUS where there is no gate

Use the `receive` that comes back: what the project's handler read of the body is in it again. `scope["user"]` and
`scope["auth"]` are set as Starlette's authentication does, so `request.user.identity` works in the project's routes.
"""

from waystation.auth.gate import Gate, caller_of
from waystation.auth.principal import ACTING_AS, ANONYMOUS, ANYTHING, Principal, Resource, Rules
from waystation.auth.user import User, user_from

__all__ = [
    "ACTING_AS",
    "ANONYMOUS",
    "ANYTHING",
    "Gate",
    "Principal",
    "Resource",
    "Rules",
    "User",
    "caller_of",
    "user_from",
]
