"""What an entry of the SDK's table is, and how a scenario makes itself one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from live_server import Client

Scenario = Callable[[Client], Awaitable[None]]
KINDS = ("async", "sync")


@dataclass(frozen=True, slots=True)
class Entry:
    """One use of one public method or attribute, with the arguments that it exercises."""

    path: str
    keywords: frozenset[str]
    kinds: tuple[str, ...]
    scenario: Scenario
    name: str


ENTRIES: list[Entry] = []
"""Filled as the scenarios' modules are imported; `sdk_surface` imports them all."""


def covers(path: str, *keywords: str, kinds: tuple[str, ...] = KINDS) -> Callable[[Scenario], Scenario]:
    """Enter a scenario: it uses `path`, and with it at least these arguments."""

    def enter(scenario: Scenario) -> Scenario:
        name = getattr(scenario, "__name__", "")
        ENTRIES.append(Entry(path, frozenset(keywords), kinds, scenario, name))
        return scenario

    return enter
