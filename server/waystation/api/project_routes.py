"""Which requests are for the project's own application (`http.app`), and which for our operations.

Its routes win against the API's, so that a project can replace one, but not against those about the server itself
(`/ok`, `/info`, `/metrics`, ...), which machines ask. What nobody has is its business too: it may have a page for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

from waystation.api.dispatch import Found, RouteTable
from waystation.api.routing import Operation

_SAMPLE = "00000000-0000-0000-0000-000000000000"
_ROOT = "/"


class ProjectRoutes:
    """The routes of the project's application beside the table of our operations."""

    def __init__(
        self, routes: Sequence[BaseRoute], operations: Sequence[Operation], find: Callable[[str, str], object]
    ) -> None:
        self._find = find
        # A mount at the root would take everything.
        self._named = [route for route in routes if not (isinstance(route, Mount) and not route.path)]
        table = RouteTable(operations)
        yielding = [operation for operation in operations if may_be_replaced(operation)]
        self._contested = [route for route in self._named if _meets(route, yielding, table)]

    def own(self, scope: Scope, path: str) -> bool:
        """Whether the request is for the application; `path` is that of the scope below all prefixes."""
        if scope["type"] == "websocket":
            return True
        found = self._find(scope["method"], path)
        if isinstance(found, Found):
            return bool(self._contested) and may_be_replaced(found.operation) and _any_full(self._contested, scope)
        return not getattr(found, "allowed", None) or _any_full(self._named, scope)

    def is_open(self, method: str, path: str) -> bool:
        """Whether the request is for an operation of ours that asks nobody who they are."""
        found = self._find(method, path)
        return isinstance(found, Found) and "System" in found.operation.tags


def may_be_replaced(operation: Operation) -> bool:
    """Whether a route of the project with the same path takes the operation's place."""
    return "System" not in operation.tags or operation.path == _ROOT


def _any_full(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


def _meets(route: BaseRoute, operations: Sequence[Operation], table: RouteTable) -> bool:
    """Whether there is a path that both this route and one of the operations answer."""
    for operation in operations:
        for method in operation.methods or ():
            if _any_full([route], _scope(method, operation.path_format)):
                return True
    path: str | None = getattr(route, "path_format", None)
    if path is None or isinstance(route, Mount):
        return False
    methods: set[str] = getattr(route, "methods", None) or set()
    found = [table.find(method, _filled(path)) for method in methods]
    return any(isinstance(one, Found) and may_be_replaced(one.operation) for one in found)


def _scope(method: str, path_format: str) -> Scope:
    return {"type": "http", "method": method, "path": _filled(path_format), "root_path": "", "headers": []}


def _filled(path_format: str) -> str:
    return re.sub(r"\{[^}]*\}", _SAMPLE, path_format)
