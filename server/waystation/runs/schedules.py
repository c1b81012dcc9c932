"""When a cron fires: a schedule of five or six fields (seconds last) in a time zone.

Where the clocks change, a schedule that names hours and minutes follows the clock on the wall: a time that does not
exist is moved to the first moment that does, one that exists twice happens the first time. A schedule with `*` in hours
or minutes follows the time that passes, so that every hour has its tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice, pairwise, takewhile
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from waystation.errors import InvalidRequest

MAX_LENGTH: Final = 200
_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LOOKED_AT: Final = 60
_LOOKED_AHEAD: Final = timedelta(days=400)
"""Ticks that are looked at to find out how close together they come."""

_SHIFT: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule that fires. `fields` are as the library wants them, seconds first if there are any."""

    fields: str
    zone: tzinfo

    def after(self, moment: datetime) -> datetime | None:
        """The first tick later than `moment`, in UTC; None when there is none in the next 50 years."""
        return next(self._ticks(moment), None)

    def shortest_gap_s(self, moment: datetime) -> float | None:
        """How close together its next ticks come; None when there are not two in the next year."""
        ticks = [*takewhile(lambda tick: tick - moment < _LOOKED_AHEAD, islice(self._ticks(moment), _LOOKED_AT))]
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(ticks)]
        return min(gaps, default=None)

    def _ticks(self, moment: datetime) -> Iterator[datetime]:
        """In UTC, each later than the one before."""
        last = moment.astimezone(UTC)
        for tick in self._by_wall_clock(last) if self._names_times else self._by_passing_time(last):
            if tick > last:
                yield tick
                last = tick

    @property
    def _names_times(self) -> bool:
        *_, minutes, hours, _day, _month, _weekday = self.fields.split()
        return not minutes.startswith("*") and not hours.startswith("*")

    def _by_passing_time(self, moment: datetime) -> Iterator[datetime]:
        for tick in CronSim(self.fields, moment.astimezone(self.zone)):
            yield tick.astimezone(UTC)

    def _by_wall_clock(self, moment: datetime) -> Iterator[datetime]:
        # What the wall showed up to now stands for moments up to now: only what it shows later can lie ahead.
        for tick in CronSim(self.fields, moment.astimezone(self.zone).replace(tzinfo=None)):
            yield _existing(tick, self.zone)


def _existing(wall: datetime, zone: tzinfo) -> datetime:
    """The moment at which the clock on the wall shows this for the first time, or first shows something later."""
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    # A gap: read with the offset before it, the wall time lies as far behind the gap's end as it was inside.
    before = wall.replace(second=0)
    while before.replace(tzinfo=zone, fold=0).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != before:
        before += _SHIFT
    return before.replace(tzinfo=zone, fold=0).astimezone(UTC)


def parse_schedule(schedule: str, timezone: str | None, *, now: datetime) -> Schedule:
    """A schedule as a client sent it.

    Raises:
        InvalidRequest: it is none, the zone is unknown, or it never fires.
    """
    parsed = Schedule(_fields(schedule), _zone(timezone))
    if parsed.after(now) is None:
        raise InvalidRequest(f"schedule: {schedule!r} never fires")
    return parsed


@lru_cache(maxsize=4096)
def stored_schedule(schedule: str, timezone: str | None) -> Schedule:
    """A schedule that was accepted once. Raises InvalidRequest when this server cannot use it, such as a zone that its
    time zone data does not have."""
    return Schedule(_fields(schedule), _zone(timezone))


def _fields(schedule: str) -> str:
    text = _ALIASES.get(schedule.strip().lower(), schedule)
    parts = text.split()
    if len(text) > MAX_LENGTH or len(parts) not in (5, 6):
        raise _bad(schedule, "expected five fields (minute hour day month weekday) or six (seconds last)")
    ordered = " ".join(parts if len(parts) == 5 else [parts[5], *parts[:5]])
    try:
        CronSim(ordered, datetime(2000, 1, 1))
    except CronSimError as error:
        raise _bad(schedule, str(error)) from None
    except (ValueError, AssertionError):
        raise _bad(schedule, "not a schedule") from None
    return ordered


def _bad(schedule: str, why: str) -> InvalidRequest:
    shown = schedule if len(schedule) <= 80 else schedule[:77] + "..."
    return InvalidRequest(
        f"schedule: {shown!r} is no cron schedule: {why}. Example: '*/5 * * * *' for every 5 minutes."
    )


def _zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    if name not in _zones():
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise InvalidRequest(f"timezone: {shown!r} is no IANA time zone, such as 'America/New_York'")
    return UTC if name == "UTC" else ZoneInfo(name)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})
