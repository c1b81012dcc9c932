"""`for`: whose runs an entry of `waystation.guards` is about."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Generic, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from waystation.catalog.keys_form import Text

T = TypeVar("T")


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[Text, ...], BeforeValidator(_one_or_more), Field(min_length=1)]

_WEIGHTS: Final = {"key": 16, "user": 8, "assistant": 4, "tenant": 2, "graph": 1}
"""Which member makes an entry more specific than all that stand behind it together."""


class SelectorKeys(BaseModel):
    """Names, or patterns with `*`; of each member one has to match, and all members have to. Empty: every run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: Patterns | None = None
    assistant: Patterns | None = None
    tenant: Patterns | None = None
    user: Patterns | None = None
    key: Patterns | None = None

    def matches(self, **names: str) -> bool:
        """Whether it is about a run of this `graph`, `assistant`, `tenant`, `user` and `key`."""
        return all(
            any(fnmatchcase(names[member], pattern) for pattern in patterns)
            for member, patterns in self._given().items()
        )

    def may_concern(self, tenant: str) -> bool:
        """Whether any run of a tenant may be meant."""
        return self.tenant is None or any(fnmatchcase(tenant, pattern) for pattern in self.tenant)

    @property
    def specificity(self) -> int:
        """The larger, the more it is about single runs: a key, then a user, an assistant, a tenant, a graph."""
        return sum(_WEIGHTS[member] for member in self._given())

    @property
    def text(self) -> str:
        """A stable name; empty for every run."""
        return ",".join(f"{member}={'|'.join(patterns)}" for member, patterns in self._given().items())

    def _given(self) -> dict[str, tuple[str, ...]]:
        values = {member: cast("tuple[str, ...] | None", getattr(self, member)) for member in sorted(_WEIGHTS)}
        return {member: patterns for member, patterns in values.items() if patterns}


class Entry(BaseModel, Generic[T]):
    """One entry of a list: `for`, and beside it the members of a guard's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    selector: SelectorKeys = SelectorKeys()
    settings: T

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError("should be an object")
        members = dict(cast("dict[str, Any]", value))
        selector = members.pop("for", None)
        return {"settings": members} | ({} if selector is None else {"selector": selector})


def place(loc: tuple[int | str, ...]) -> str:
    """The dotted name of a key in the file, of a place in these models."""
    steps = [str(step) for step in loc if step != "settings" and "[" not in str(step) and not _is_class(step)]
    return ".".join("for" if step == "selector" else step for step in steps)


def _is_class(step: int | str) -> bool:
    """A union adds the name of the class that was tried."""
    return isinstance(step, str) and step[:1].isupper()
