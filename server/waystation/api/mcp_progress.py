"""A run's events as an MCP client's progress: one notification for each node that is done, or what the graph reports.

A graph reports by itself when it writes `{"progress": 3, "total": 10, "message": "…"}` to its stream writer: from then
on its numbers count, and the nodes are not told any more. What else it writes is told as a message.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import orjson

from waystation.events import Event
from waystation_db.json import dumps

MAX_MESSAGE: Final = 500


class Progress:
    """The progress of one call. Every notification's number is higher than the one before."""

    def __init__(self, token: str | int) -> None:
        self._token = token
        self._done = 0.0
        self._reported = False

    def notification(self, event: Event) -> bytes | None:
        """What to tell the client of an event; None: nothing."""
        match event.mode:
            case "custom":
                return self._of_custom(orjson.loads(event.data))
            case "updates" if not self._reported:
                return self._of_update(orjson.loads(event.data))
            case _:
                return None

    def _of_update(self, update: Any) -> bytes | None:
        nodes = [name for name in cast("dict[str, Any]", update) if not name.startswith("__")] if update else []
        return self._tell(self._done + 1, message=", ".join(nodes)) if nodes else None

    def _of_custom(self, value: Any) -> bytes | None:
        members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        number = _number(members.get("progress"))
        if number is None:
            if self._reported:
                return None
            return self._tell(self._done + 1, message=value if isinstance(value, str) else dumps(value).decode())
        self._reported = True
        if number <= self._done:
            return None
        message = members.get("message")
        return self._tell(
            number, message=message if isinstance(message, str) else "", total=_number(members.get("total"))
        )

    def _tell(self, number: float, *, message: str, total: float | None = None) -> bytes:
        self._done = number
        params: dict[str, Any] = {"progressToken": self._token, "progress": number}
        if total is not None:
            params["total"] = total
        if message:
            params["message"] = message[:MAX_MESSAGE]
        return dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
