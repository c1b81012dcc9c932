"""Which of a thread's events a subscriber gets: by channel, by namespace, by depth below it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from waystation.errors import BadRequest
from waystation.events.protocol import Namespace, ThreadEvent

CHANNELS: Final = ("values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks")
_ACCEPTED: Final = frozenset({*CHANNELS, "checkpoints"})
MAX_NAMESPACES: Final = 1000
_SHOWN: Final = 10
_SHOWN_TEXT: Final = 80


@dataclass(frozen=True, slots=True)
class Filter:
    """What one subscription asks for. `depth` counts only below one of the `namespaces`."""

    channels: frozenset[str]
    namespaces: tuple[Namespace, ...] | None = None
    depth: int | None = None
    since: int = 0

    def passes(self, event: ThreadEvent) -> bool:
        """Whether the subscriber gets the event; its number is not looked at."""
        channel = event.channel
        if channel not in self.channels and not (channel.startswith("custom:") and "custom" in self.channels):
            return False
        if self.namespaces is None:
            return True
        return _is_within(event.namespace, self.namespaces, self.depth)


def parse_filter(body: dict[str, Any]) -> Filter:
    """The filter that a client sent. Members that make no sense are ignored, but for the channels.

    Raises:
        BadRequest: no channels, or unknown ones.
    """
    asked: Any = body.get("channels")
    if not isinstance(asked, list) or not asked:
        raise BadRequest("channels is required and must be a non-empty array")
    channels = cast("list[Any]", asked)
    unknown = [channel for channel in channels if not _is_channel(channel)]
    if unknown:
        named = ", ".join(str(channel)[:_SHOWN_TEXT] for channel in unknown[:_SHOWN])
        raise BadRequest(
            f"channels contains unsupported entries: {named}. Allowed: {', '.join(CHANNELS)}, or any `custom:<name>`."
        )
    return Filter(frozenset(channels), _namespaces(body), _count(body.get("depth")), _count(body.get("since")) or 0)


def _is_channel(channel: object) -> bool:
    return isinstance(channel, str) and (channel in _ACCEPTED or (channel.startswith("custom:") and len(channel) > 7))


def _namespaces(body: dict[str, Any]) -> tuple[Namespace, ...] | None:
    given: Any = body.get("namespaces")
    if not isinstance(given, list) or not given:
        return None
    chosen = [
        tuple(cast("list[str]", namespace))
        for namespace in cast("list[Any]", given)[:MAX_NAMESPACES]
        if isinstance(namespace, list) and all(isinstance(part, str) for part in cast("list[Any]", namespace))
    ]
    return tuple(chosen) or None


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return min(value, 2**53)


@lru_cache(maxsize=4096)
def _is_within(namespace: Namespace, prefixes: tuple[Namespace, ...], depth: int | None) -> bool:
    return any(
        _begins(namespace, prefix) and (depth is None or len(namespace) - len(prefix) <= depth) for prefix in prefixes
    )


def _begins(namespace: Namespace, prefix: Namespace) -> bool:
    """Segments compare exactly, or without the task id where the prefix names none."""
    return len(prefix) <= len(namespace) and all(
        segment == part or (":" not in part and segment.partition(":")[0] == part)
        for segment, part in zip(namespace, prefix, strict=False)
    )
