"""Redaction of log lines: a structlog processor, which is a function of a logger, a method's name and a dict.

structlog.configure(processors=[..., structlog.processors.format_exc_info, RedactLogs(), renderer])
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final, cast

from waystation_guards.redaction.patterns import KINDS, Kind
from waystation_guards.redaction.redaction import Redactor

_OWN: Final = frozenset({"timestamp", "level", "logger", "run_id", "thread_id", "attempt", "request_id", "trace_id"})
"""Members that logging itself makes: ids are what a line is found by."""


class RedactLogs:
    """Takes what is personal or secret out of every member of a line. Objects are shown by their redacted `repr`."""

    def __init__(self, kinds: Sequence[str] = KINDS, *, patterns: Mapping[str, str] | None = None) -> None:
        """Raises ValueError: there is no such kind, or a pattern is none."""
        self._redactor = Redactor(kinds=cast("tuple[Kind, ...]", tuple(kinds)), patterns=patterns or {})

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in event.items():
            if name not in _OWN:
                event[name] = self._redactor.value({name: self._shown(value)})[name]
        return event

    def _shown(self, value: Any) -> Any:
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, Mapping):
            members = cast("Mapping[Any, Any]", value).items()
            return {self._redactor.text(str(name)): self._shown(one) for name, one in members}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._shown(one) for one in cast("Sequence[Any]", value)]
        return self._redactor.text(repr(value))
