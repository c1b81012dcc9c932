"""How much of a service is offered: full, reduced, minimal or maintenance, for all processes alike.

    an operator's word (`set_level`, with its end) ─▶ else the worst level that a rule asks for ─▶ else full

    signal ≥ enter ─▶ the level is taken up, and held for `hold_s`
    signal ≥ leave ─▶ it is held on
    signal < leave ─▶ it runs out; the next milder level stands as long again

Levels live in `State` under names that expire there, on its clock. No process has to be the one that lowers a level,
and one that dies leaves nothing behind. Where the state is away, the level is what it was last known to be.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any, Final, Literal, TypeVar, cast, get_args

from waystation_guards.blocking import at_home
from waystation_guards.calls import CallSite
from waystation_guards.errors import InMaintenance
from waystation_guards.ports import SHARED, Ports
from waystation_guards.telling import tell
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

log = logging.getLogger(__name__)

Level = Literal["full", "reduced", "minimal", "maintenance"]

LEVELS: Final[tuple[Level, ...]] = get_args(Level)
"""From the best to the worst."""

DEFAULT: Final = "default"
"""The name of the levels of those who give them none."""

_STATE_S: Final = 1.0
_MANY: Final = 10_000

T = TypeVar("T")

Signal = Callable[[Ports, CallSite], Awaitable[float]]
"""Reads what rules are about. See `levels_signals`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`level` from where a signal reaches `enter` until it falls below `leave`; `enter` itself if None."""

    signal: str
    level: Level
    enter: float
    leave: float | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS[1:]:
            raise ValueError(f"level of a rule is {self.level!r}; expected is one of {', '.join(LEVELS[1:])}")
        if self.leave is not None and self.leave > self.enter:
            raise ValueError(f"leave of a rule is {self.leave!r}; expected is at most enter, {self.enter!r}")

    @property
    def until(self) -> float:
        return self.enter if self.leave is None else self.leave


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """Which rules there are, and how fast levels change.

    `name`: whose levels: those of one name are shared by all tenants. It may name the caller's `{tenant}`, `{graph}`,
    `{assistant}`, `{user}` or `{key}`, which then have levels of their own: where rules are about a caller's budget.
    `hold_s`: how long a level stands after the last sign of what it was taken up for. `check_s`: for how long a process
    takes what it read for true.
    """

    rules: tuple[Rule, ...] = ()
    name: str = DEFAULT
    hold_s: float = 60.0
    check_s: float = 1.0

    def __post_init__(self) -> None:
        try:
            self.name_for(CallSite())
        except (KeyError, ValueError, IndexError):
            raise ValueError(f"name of levels is {self.name!r}; expected are names of a caller's in braces") from None

    def name_for(self, site: CallSite) -> str:
        """The name of a caller's levels."""
        return self.name if "{" not in self.name else self.name.format_map(asdict(site))

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> LevelPolicy:
        """A policy from JSON values: `{"rules": [{"signal": …, "level": …, "enter": …}], "hold_s": …}`.

        Raises:
            ValueError: a key or value that is none; the message names it.
        """
        known = ("rules", "name", "hold_s", "check_s")
        for name in given:
            if name not in known:
                raise ValueError(f"levels.{name} is unknown; expected is one of {', '.join(known)}")
        rules: list[Rule] = []
        for at, rule in enumerate(given.get("rules") or ()):
            try:
                rules.append(Rule(**cast("dict[str, Any]", rule)))
            except TypeError as error:
                raise ValueError(f"levels.rules[{at}] is {rule!r}; expected are signal, level and enter") from error
        members: dict[str, Any] = {**given, "rules": tuple(rules)}
        return cls(**members)


@dataclass(frozen=True, slots=True)
class LevelStanding:
    """The level that holds now, and why. `until`: the end of an operator's word, in ISO 8601; empty where it has none.

    `source`: "operator", "rules" or "" for nobody. `reason`: the operator's, or the signal that asked for it.
    """

    level: Level = "full"
    source: str = ""
    reason: str = ""
    by: str = ""
    until: str = ""

    def as_event(self) -> dict[str, Any]:
        """The members of the stream's event, and of metadata."""
        return asdict(self)


OnLevel = Callable[[LevelStanding, LevelStanding], None]
"""Told of the level before and the level now, by each process that sees the change."""


def worst(*levels: Level) -> Level:
    """The worst of some levels; full of none."""
    return LEVELS[max(map(LEVELS.index, levels), default=0)]


def at_level(choices: Mapping[Level, T], level: Level) -> T | None:
    """What is meant for a level: its own choice, or that of the next better level that has one."""
    better = reversed(LEVELS[: LEVELS.index(level) + 1])
    return next((choices[one] for one in better if one in choices), None)


async def set_level(
    ports: Ports, level: Level, *, for_s: float | None = None, by: str = "", reason: str = "", name: str = DEFAULT
) -> LevelStanding:
    """Let a level hold, whatever the rules ask for: until `clear_level`, or for so many seconds.

    Raises:
        ValueError: the level is none, or `for_s` is no positive number.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; expected is one of {', '.join(LEVELS)}")
    if for_s is not None and not (0 < for_s < math.inf):
        raise ValueError(f"for_s is {for_s!r}; expected is a number of seconds above zero")
    until = "" if for_s is None else (await _now(ports) + timedelta(seconds=for_s)).isoformat()
    standing = LevelStanding(level, "operator", reason, by, until)
    await at_home(ports.state.write(_operators(name), json.dumps(asdict(standing)), ttl_s=for_s), ports.loop)
    log.warning("an operator set the level", extra={"level": level, "name_of_levels": name, "by": by, "until": until})
    return standing


async def clear_level(ports: Ports, *, name: str = DEFAULT) -> None:
    """Take an operator's word back: the rules decide again."""
    await at_home(ports.state.write(_operators(name), None), ports.loop)


async def current_level(ports: Ports, *, name: str = DEFAULT) -> LevelStanding:
    """The level that holds now, as the shared state has it. Rules are not asked: processes that work do that."""
    word = await at_home(ports.state.read(_operators(name)), ports.loop)
    if word is not None:
        return LevelStanding(**json.loads(word))
    held = await _held(ports, name)
    level = worst(*held)
    return LevelStanding(level, "rules", held[level]) if held else LevelStanding()


@dataclass(slots=True)
class _Known:
    standing: LevelStanding = field(default_factory=LevelStanding)
    at: float = -math.inf


@dataclass(slots=True, eq=False)
class Degradation:
    """Levels by rules over signals. Also a guard (`watching.Guard`): from `refuse_at` on no call is let through.

    `on_level`: for metrics and webhooks. Signals that fail count as zero, and are logged.
    """

    policy: LevelPolicy = field(default_factory=LevelPolicy)
    signals: Mapping[str, Signal] = field(default_factory=dict[str, Signal])
    on_level: OnLevel | None = None
    refuse_at: Level = "maintenance"
    _known: dict[str, _Known] = field(default_factory=dict[str, _Known])

    def __post_init__(self) -> None:
        for rule in self.policy.rules:
            if rule.signal not in self.signals:
                known = ", ".join(self.signals) or "none"
                raise ValueError(f"signal of a rule is {rule.signal!r}; expected is one of {known}")

    async def level(self, ports: Ports, site: CallSite) -> LevelStanding:
        """The level that holds for a caller, by a reading that is at most `check_s` old."""
        known = self._known_of(self.policy.name_for(site))
        if monotonic() - known.at < self.policy.check_s:
            return known.standing
        if known.at > 0:
            known.at = (
                monotonic()
            )  # whoever comes meanwhile goes by the last reading: one asks, and nobody waits for it
        try:
            async with asyncio.timeout(_STATE_S):
                standing = await self._read(ports, site)
        except Exception as error:
            log.warning("the state of levels does not answer; the last known level stands", exc_info=error)
            return known.standing
        known.at = monotonic()
        before, known.standing = known.standing, standing
        if before.level != standing.level:
            self._tell(before, standing)
        return standing

    def known(self, site: CallSite) -> LevelStanding:
        """The level as it was last read, without waiting; full before."""
        return self._known_of(self.policy.name_for(site)).standing

    async def before_model(self, call: ModelCall) -> None:
        """Raises InMaintenance where the level lets nothing through."""
        await self._refuse(call.ports, call.site)

    async def after_model(self, call: ModelCall, made: Made) -> None:
        pass

    async def before_tool(self, call: ToolCall) -> None:
        """Raises as `before_model`."""
        await self._refuse(call.ports, call.site)

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        pass

    async def _refuse(self, ports: Ports, site: CallSite) -> None:
        standing = await self.level(ports, site)
        if LEVELS.index(standing.level) >= LEVELS.index(self.refuse_at):
            raise in_maintenance(standing)

    async def _read(self, ports: Ports, site: CallSite) -> LevelStanding:
        name = self.policy.name_for(site)
        wanted = await self._wanted(ports, site, name)
        if wanted:
            await self._hold(ports, name, level := worst(*wanted), wanted[level])
        return await current_level(ports, name=name)

    async def _wanted(self, ports: Ports, site: CallSite, name: str) -> Mapping[Level, str]:
        """The levels that rules ask for, with the reason."""
        if not self.policy.rules:
            return {}
        held = await _held(ports, name)
        standing = LEVELS.index(worst(*held))
        signals = dict.fromkeys(rule.signal for rule in self.policy.rules)
        read = {signal: await _value(signal, self.signals[signal], ports, site) for signal in signals}
        found: dict[Level, str] = {}
        for rule in self.policy.rules:
            stands = LEVELS.index(rule.level) <= standing
            if read[rule.signal] >= (rule.until if stands else rule.enter):
                found.setdefault(rule.level, f"{rule.signal} {read[rule.signal]:g}")
        return found

    async def _hold(self, ports: Ports, name: str, level: Level, reason: str) -> None:
        """The level, and all milder ones for longer each: so it goes back step by step."""
        at = LEVELS.index(level)
        for step, one in enumerate(reversed(LEVELS[1 : at + 1]), start=1):
            held = ports.state.write(_rules(name, one), reason, ttl_s=self.policy.hold_s * step)
            await at_home(held, ports.loop)

    def _known_of(self, name: str) -> _Known:
        if len(self._known) > _MANY and name not in self._known:
            self._known.clear()
        return self._known.setdefault(name, _Known())

    def _tell(self, before: LevelStanding, now: LevelStanding) -> None:
        log.warning("the level changed", extra={"level": now.level, "before": before.level, "reason": now.reason})
        tell("level", {"event": "changed", "before": before.level, **now.as_event()})
        if self.on_level is not None:
            try:
                self.on_level(before, now)
            except Exception:  # whoever is told must not fail the call that told
                log.exception("a callback for levels failed")


def in_maintenance(standing: LevelStanding) -> InMaintenance:
    """The refusal at a level that lets nothing through."""
    until = f" until {standing.until}" if standing.until else ""
    return InMaintenance(f"the service is in maintenance{until}; please try again later")


async def _value(name: str, signal: Signal, ports: Ports, site: CallSite) -> float:
    try:
        return await signal(ports, site)
    except Exception as error:
        log.warning("a signal of levels cannot be read", extra={"signal": name}, exc_info=error)
        return 0.0


async def _held(ports: Ports, name: str) -> dict[Level, str]:
    """The levels that rules hold, with their reasons."""
    found: dict[Level, str] = {}
    for level in LEVELS[1:]:
        if (reason := await at_home(ports.state.read(_rules(name, level)), ports.loop)) is not None:
            found[level] = reason
    return found


async def _now(ports: Ports) -> Any:
    return await at_home(ports.ledger.now(), ports.loop)


def _operators(name: str) -> str:
    return f"{SHARED}level:{name}:operator"


def _rules(name: str, level: Level) -> str:
    return f"{SHARED}level:{name}:{level}"
