"""Limits of requests (`waystation.guards.http`) at the door of the API: which classes an operation belongs to.

reads | writes   every operation is one of them
runs             starts a run
streams          keeps the connection while a run goes on: streams, waits, joins
store            store items and namespaces
admin            what operators do: webhooks, and everything under a tag that is not an API's own
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi import Request
from starlette.types import Scope

from waystation.api.routing import Operation
from waystation.auth.gate import CALLER

if TYPE_CHECKING:  # loaded where a project has limits
    from waystation.guarding.http_limits import HttpLimits

_NOT_ADMIN: Final = frozenset(
    ("Assistants", "Threads", "Thread state", "Runs", "Stateless runs", "Thread events", "Crons", "Store", "MCP", "A2A")
) | {"OpenAI"}
_STARTS: Final = re.compile(
    r"(/threads/\{thread_id\})?/runs(/stream|/wait|/batch)?|/threads/\{thread_id\}/commands"
    r"|/mcp|/a2a/\{assistant_id\}|/v1/chat/completions|/v1/responses"
)
_READING: Final = frozenset(("search", "count", "history", "checkpoint", "namespaces", "versions", "events"))
"""Last parts of paths that are posted to and change nothing."""
_KEEPING: Final = frozenset(("stream", "wait", "join", "events"))

_SOCKET: Final = frozenset(("reads", "streams"))
_COMMAND: Final = frozenset(("writes", "runs"))
_NONE: Final = frozenset[str]()


class RequestLimits:
    """The limits of a process, as the frame asks them. All raise TooManyRequests, or Unavailable where they fail
    closed."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._classes = dict[int, frozenset[str]]()  # by id(): operations have no hash, and live as long as the process

    async def arrive(self, scope: Scope, operation: Operation | None) -> None:
        """A request came in, for an operation or for nothing that there is. It is not known yet from whom."""
        await self._limits.arrive(scope, _NONE if operation is None else self._of(operation))

    async def admit(self, scope: Scope, operation: Operation) -> None:
        """It is known who sent it. To be followed by `leave`."""
        await self._limits.admit(scope, scope.get(CALLER), self._of(operation))

    async def admit_socket(self, scope: Scope) -> None:
        """As `admit`, for a thread's WebSocket."""
        await self._limits.arrive(scope, _SOCKET)
        await self._limits.admit(scope, scope.get(CALLER), _SOCKET)

    async def admit_command(self, scope: Scope) -> None:
        """A command on a socket, which counts as a request of its own."""
        await self._limits.arrive(scope, _COMMAND)
        await self._limits.admit(scope, scope.get(CALLER), _COMMAND)

    async def leave(self, scope: Scope) -> None:
        """The request is done with. Also after `admit` raised."""
        await self._limits.leave(scope)

    async def charge_runs(self, scope: Scope, more: int) -> None:
        """A request starts so many runs beyond its first."""
        await self._limits.charge(scope, scope.get(CALLER), more)

    def _of(self, operation: Operation) -> frozenset[str]:
        classes = self._classes.get(id(operation))
        if classes is None:
            classes = self._classes[id(operation)] = classes_of(operation)
        return classes


async def count_runs(request: Request, runs: int) -> None:
    """Count all runs that a request starts. Raises TooManyRequests."""
    limits: RequestLimits | None = request.app.limits
    if limits is not None:
        await limits.charge_runs(request.scope, runs - 1)


def classes_of(operation: Operation) -> frozenset[str]:
    """The classes of an operation; none for those about the server itself, which are never limited."""
    if "System" in operation.tags:
        return frozenset()
    last = operation.path.rpartition("/")[2]
    is_read = (operation.methods or set()) <= {"GET", "HEAD"} or last in _READING
    classes = {"reads" if is_read else "writes"}
    if "POST" in (operation.methods or ()) and _STARTS.fullmatch(operation.path):
        classes.add("runs")
    if last in _KEEPING or _streams(operation):
        classes.add("streams")
    if "Store" in operation.tags:
        classes.add("store")
    if not _NOT_ADMIN.intersection(cast("list[str]", operation.tags)):
        classes.add("admin")
    return frozenset(classes)


def _streams(operation: Operation) -> bool:
    answers = cast("dict[Any, dict[str, Any]]", operation.responses)
    return any("text/event-stream" in answer.get("content", {}) for answer in answers.values())
