"""Where Waystation answers otherwise than the reference server, on purpose: place by place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol


class _Place(Protocol):
    @property
    def where(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def theirs(self) -> Any: ...
    @property
    def ours(self) -> Any: ...


@dataclass(frozen=True)
class Explained:
    """A difference that is meant. `where` (`file/step`) and `path` are globs over the place; `reason` is one sentence.

    With `ours` given, only that value of ours is explained.
    """

    where: str
    path: str
    reason: str
    ours: Any = ...

    def covers(self, place: _Place) -> bool:
        return (
            fnmatchcase(place.where, self.where)
            and fnmatchcase(place.path, self.path)
            and (self.ours is ... or self.ours == place.ours)
        )


EXPLAINED: Final[tuple[Explained, ...]] = ()
