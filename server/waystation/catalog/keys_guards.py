"""`waystation.guards`: the guards over graphs that nobody edited. Loaded only where a project has that key.

    "waystation": {"guards": {
        "budgets": [{"for": {"graph": "agent"}, "size": 5, "scope": "user", "window": "day", "on_limit": "end"}],
        "rates":   [{"target": "openai/*", "requests": 500, "tokens": 200000}]
    }}

What limits adds up: of budgets, rates, permissions and caps all entries hold whose `for` matches. What chooses has one
answer: of cache and failover the most specific entry holds, of equals the first. A key that is not known stops the
start. The members of the entries are those of the guards' own settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from waystation.catalog.keys_form import Text
from waystation.catalog.keys_guards_for import Entry, place
from waystation.catalog.keys_http_limits import HttpLimitKeys
from waystation.errors import ConfigError
from waystation_guards.limits import Limit
from waystation_guards.permissions import Permissions, permissions_of
from waystation_guards.pricing import Prices
from waystation_guards.rates_rules import ModelRate

T = TypeVar("T")

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class OwnKeys(BaseModel):
    """An object whose unknown members stop the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class KillKeys(OwnKeys):
    """`kill`: what a request for a run that is stopped is answered with."""

    status: Literal[403, 503] = 403


class AlertKeys(OwnKeys):
    """`alerts`: where it is told that a part of a budget is spent."""

    webhook: Annotated[str, Field(pattern=r"^https?://", max_length=2000)] | None = None


class MetricsKeys(OwnKeys):
    """`metrics`: tenants and models by whose name spending is counted; all others are counted as `other`."""

    tenants: tuple[Text, ...] = ()
    models: tuple[Text, ...] | None = None


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
    return keys


def prices_of(keys: GuardKeys, root: Path) -> Prices:
    """The price list. Raises ConfigError: its file is not there, or is none."""
    if keys.prices is None:
        return Prices()
    try:
        return Prices.load(root / keys.prices)
    except (OSError, ValueError) as error:
        raise ConfigError(f"waystation.guards.prices is {keys.prices!r}: {error}") from None


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
            message: str = item["msg"].removeprefix("Value error, ")
            return f"is {item['input']!r:.200}: {message[:1].lower()}{message[1:]}"
