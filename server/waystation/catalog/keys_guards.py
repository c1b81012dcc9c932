"""`waystation.guards`: the guards over graphs that nobody edited. Loaded only where a project has that key.

    "waystation": {"guards": {
        "budgets": [{"for": {"graph": "agent"}, "size": 5, "scope": "user", "window": "day", "on_limit": "end"}],
        "rates":   [{"target": "openai/*", "requests": 500, "tokens": 200000}]
    }}

What limits adds up: of budgets, rates, permissions, screening and caps all entries hold whose `for` matches. What
chooses has one answer: of cache, failover and cheaper the most specific entry holds, of equals the first; of
tool_cache the most specific one that names the tool. A key that is not known stops the start. The members of the
entries are those of the guards' own settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationError, model_validator

from waystation.catalog.keys_form import Text
from waystation.catalog.keys_guards_caches import CacheKeys, ToolCacheKeys
from waystation.catalog.keys_guards_for import Entry, place
from waystation.catalog.keys_guards_own import AlertKeys, KillKeys, MetricsKeys, OwnKeys
from waystation.catalog.keys_http_limits import HttpLimitKeys
from waystation.errors import ConfigError
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices
from waystation_guards.caps.caps import Caps
from waystation_guards.failover.policy import FailoverPolicy
from waystation_guards.levels.answers import Faq
from waystation_guards.levels.levels import LEVELS, Level, LevelPolicy, Rule
from waystation_guards.permissions.permissions import Permissions, permissions_of
from waystation_guards.rates.rules import ModelRate
from waystation_guards.screening.screening import ScreenSettings

T = TypeVar("T")

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


ModelSpec = Text | dict[str, Any]
"""A model by its provider's name (`openai:gpt-5-mini`), or with settings (`providers.ModelSettings`)."""


class FailoverKeys(OwnKeys):
    """`failover`: by pattern of the models that graphs call, the models that are asked when those fail."""

    models: Annotated[dict[Text, Annotated[tuple[ModelSpec, ...], Field(min_length=1)]], Field(min_length=1)]
    policy: FailoverPolicy = Field(default_factory=FailoverPolicy)


class CheaperKeys(OwnKeys):
    """`cheaper`: by pattern of the models that graphs call, the one that is called where a budget degrades, and from
    the level `reduced` on."""

    models: Annotated[dict[Text, ModelSpec], Field(min_length=1)]


def _faq(value: object) -> str | dict[str, str]:
    """A file's name, or questions with their answers."""
    return value if isinstance(value, str) and value else _questions(value)


def _questions(value: object) -> dict[str, str]:
    members = cast("dict[str, str]", value) if isinstance(value, dict) else {}
    texts: list[object] = [*members, *members.values()]
    if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise ValueError("expected is the name of a JSON file, or an object of questions and answers")
    return members


class LevelKeys(OwnKeys):
    """`levels`: when less is offered. Signals are `breakers` (the part of the targets of that name whose breakers are
    open), `budget` (the part of the run's most used limit that is spent) and `queue_age_s`. `faq`: what is answered at
    `minimal`, by question, or the name of a JSON file with that; `otherwise`: what is said where it has no answer."""

    rules: tuple[Rule, ...] = ()
    name: Text = "default"
    hold_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    check_s: Annotated[float, Field(gt=0, le=600)] = 1.0
    breakers: tuple[Text, ...] = ()
    refuse_at: Level = "maintenance"
    faq: Annotated[str | dict[str, str] | None, PlainValidator(_faq)] = None
    otherwise: Text | None = None

    @model_validator(mode="after")
    def _known_signals(self) -> LevelKeys:
        for rule in self.rules:
            if rule.signal not in SIGNALS:
                raise ValueError(f"signal of a rule is {rule.signal!r}; expected is one of {', '.join(SIGNALS)}")
            if rule.signal == "breakers" and not self.breakers:
                raise ValueError("a rule is about breakers, and breakers names no targets")
        self.policy()
        if LEVELS.index(self.refuse_at) <= LEVELS.index("minimal") and (self.faq or self.otherwise):
            raise ValueError(f"nothing is answered at minimal where refuse_at is {self.refuse_at}: expected no faq")
        return self

    def policy(self) -> LevelPolicy:
        """As the guard takes it. Raises ValueError: `name` names what callers do not have."""
        return LevelPolicy(self.rules, self.name, self.hold_s, self.check_s)


SIGNALS: Final = ("breakers", "budget", "queue_age_s")


def _screening(value: object) -> object:
    """Through callbacks nothing can be marked: what is not said is logged."""
    if not isinstance(value, Mapping):
        return value
    return {"on_tool": "log", "on_document": "ignore", **cast("Mapping[str, Any]", value)}


def _marks_nothing(settings: ScreenSettings) -> ScreenSettings:
    if "mark" in (settings.on_input, settings.on_tool, settings.on_document):
        raise ValueError("on_input, on_tool or on_document is mark: graphs that nobody edited cannot mark")
    return settings


AnyScreening = Annotated[ScreenSettings, BeforeValidator(_screening), AfterValidator(_marks_nothing)]


def _caps_from_outside(caps: Caps) -> Caps:
    if caps.sends is not None:
        raise ValueError("sends can only be capped in the graph (`capped_sends`)")
    return caps


def _permissions(value: object) -> object:
    return permissions_of(value) if isinstance(value, Mapping) else value  # pyright: ignore[reportUnknownArgumentType]


AnyPermissions = Annotated[Permissions, BeforeValidator(_permissions)]


def _scopes_end(limit: Limit) -> Limit:
    if limit.unit == "tool_calls" and limit.on_limit == "degrade":
        raise ValueError("on_limit degrade is for model calls: there is no cheaper tool")
    return limit


class GuardKeys(OwnKeys):
    """All of `waystation.guards`."""

    prices: Text | None = None
    budgets: tuple[Entry[Annotated[Limit, AfterValidator(_scopes_end)]], ...] = ()
    budget_wait_s: Seconds = 30.0
    rates: tuple[Entry[ModelRate], ...] = ()
    rates_wait_s: Seconds = 60.0
    rates_fail: Literal["open", "closed"] = "open"
    permissions: tuple[Entry[AnyPermissions], ...] = ()
    screening: tuple[Entry[AnyScreening], ...] = ()
    caps: tuple[Entry[Annotated[Caps, AfterValidator(_caps_from_outside)]], ...] = ()
    cache: tuple[Entry[CacheKeys], ...] = ()
    tool_cache: tuple[Entry[ToolCacheKeys], ...] = ()
    failover: tuple[Entry[FailoverKeys], ...] = ()
    cheaper: tuple[Entry[CheaperKeys], ...] = ()
    levels: LevelKeys | None = None
    http: HttpLimitKeys | None = None
    kill: KillKeys = KillKeys()
    alerts: AlertKeys = AlertKeys()
    metrics: MetricsKeys = MetricsKeys()


def read_guards(given: object, root: Path) -> GuardKeys:
    """The guards of a project, checked. `root` is where relative files lie.

    Raises:
        ConfigError: with a line for each wrong value, which names the key, the value and what was expected.
    """
    try:
        keys = GuardKeys.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaints(error))) from None
    prices_of(keys, root)
    faq_of(keys, root)
    return keys


def prices_of(keys: GuardKeys, root: Path) -> Prices:
    """The price list. Raises ConfigError: its file is not there, or is none."""
    if keys.prices is None:
        return Prices()
    try:
        return Prices.load(root / keys.prices)
    except (OSError, ValueError) as error:
        raise ConfigError(f"waystation.guards.prices is {keys.prices!r}: {error}") from None


def faq_of(keys: GuardKeys, root: Path) -> Faq | None:
    """What is answered at the level `minimal`; None without a list. Raises ConfigError: its file is not there, or holds
    no such list."""
    found = None if keys.levels is None else keys.levels.faq
    if not isinstance(found, str):
        return None if found is None else Faq(found)
    try:
        return Faq(_questions(json.loads((root / found).read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"waystation.guards.levels.faq is {found!r}: {error}") from None


def _complaints(error: ValidationError) -> Iterator[str]:
    told: set[str] = set()
    for item in error.errors(include_url=False, include_context=False):
        key = f"waystation.guards.{place(item['loc'])}".rstrip(".")
        if key in told:
            continue
        told.add(key)
        yield f"{key} {_wrong(item)}"


def _wrong(item: Mapping[str, Any]) -> str:
    match item["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return "is not known"
        case _:
            # A frozen model keeps a list as a tuple, which no JSON has.
            message: str = item["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
            return f"is {item['input']!r:.200}: {message[:1].lower()}{message[1:]}"
