"""What two recordings of the same exchange may differ in without differing: ids, times, ports, how long it took.

Ids are not renumbered but matched: wherever the reference shows one id, ours has to show one, and always the same one
(`Ids`). So an id that is missing in one place does not make all the others after it look different.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, cast

_ASSISTANTS = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
_GRAPHS = (
    *("chat", "agent", "steps", "hitl", "multi", "nested", "slow", "fail", "fan", "echo", "memory"),
    *("steps_all", "agent_all", "nested_all", "factory_config", "factory_cm", "factory_async"),
)

FIXED_IDS = frozenset({str(uuid.UUID(int=0)), *(str(uuid.uuid5(_ASSISTANTS, graph)) for graph in _GRAPHS)})
"""Ids that the contract fixes: those of the default assistants, and the one that names nothing."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)"), "<time>"),
    (re.compile(r"(?<!\d)\d{13}-\d+(\.\d+)?(?!\d)"), "<event id>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://<server>"),
)
_TIMING = frozenset({"t", "took", "raw"})


class Ids:
    """Which of our ids stands for which of the reference's, one to one."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}
        self._theirs: dict[str, str] = {}

    def match(self, theirs: str, ours: str) -> bool:
        """Whether the two stand for the same thing; the first meeting of two new ids settles it."""
        if theirs in FIXED_IDS or ours in FIXED_IDS:
            return theirs == ours
        if theirs not in self._ours and ours not in self._theirs:
            self._ours[theirs], self._theirs[ours] = ours, theirs
        return self._ours.get(theirs) == ours and self._theirs.get(ours) == theirs

    def ours(self, theirs: str) -> str:
        """Our id for one of the reference's; itself as long as none is known."""
        return self._ours.get(theirs, theirs)

    def knows(self, theirs: str) -> bool:
        """Whether one of ours stands for the reference's id."""
        return theirs in self._ours

    def pairs(self) -> list[tuple[str, str]]:
        """Every id of the reference with ours."""
        return list(self._ours.items())

    def match_all(self, theirs: list[str], ours: list[str]) -> bool:
        """Whether two texts' ids stand for the same things, in order. All are noted, whatever the first says."""
        met = [self.match(a, b) for a, b in zip(theirs, ours, strict=True)]
        return all(met)


def ids_in(text: str) -> list[str]:
    """The ids within a text, in order."""
    return _ID.findall(text)


def template(text: str) -> str:
    """A text without what is never the same twice."""
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return _ID.sub(lambda found: found[0] if found[0] in FIXED_IDS else "<id>", text)


def shape(value: Any) -> str:
    """A value as a text that is equal for two recordings of the same thing, whatever their ids."""
    return template(json.dumps(value, sort_keys=True))


def untimed(exchange: dict[str, Any]) -> dict[str, Any]:
    """An exchange without its timing."""
    response = {k: v for k, v in exchange.get("response", {}).items() if k not in _TIMING}
    if "events" in response:
        events = cast("list[dict[str, Any]]", response["events"])
        response["events"] = [{k: v for k, v in event.items() if k not in _TIMING} for event in events]
    if "frames" in response:
        frames = cast("list[dict[str, Any]]", response["frames"])
        response["frames"] = [{k: v for k, v in frame.items() if k not in _TIMING} for frame in frames]
    return {**exchange, "response": response}
