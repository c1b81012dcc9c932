"""Budget windows: hours, days, weeks and months as the people in a time zone count them."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Window = Literal["none", "hour", "day", "week", "month"]


def window_start(window: Window, now: datetime, timezone: str = "UTC") -> datetime | None:
    """When the window that `now` lies in began, in UTC; None for `none`. Weeks begin on Monday.

    An hour is one of the clock's sixty minutes also where a zone is half an hour off.
    """
    if window == "none":
        return None
    local = now.astimezone(ZoneInfo(timezone))
    if window == "hour":
        # Counted back in UTC: where clocks are set back, an hour of the same name comes twice, and is two windows.
        return now.astimezone(UTC) - timedelta(
            minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if window == "week":
        day = (day.replace(tzinfo=None) - timedelta(days=day.weekday())).replace(tzinfo=day.tzinfo)
    elif window == "month":
        day = day.replace(day=1)
    return day.astimezone(UTC)


def window_label(window: Window, now: datetime, timezone: str = "UTC") -> str:
    """The part of an account's name that says in which window its amounts count."""
    start = window_start(window, now, timezone)
    return "" if start is None else f"{window}:{start:%Y-%m-%dT%H:%MZ}"


def window_end(window: Window, now: datetime, timezone: str = "UTC") -> datetime | None:
    """When the window that `now` lies in ends and the next begins, in UTC."""
    start = window_start(window, now, timezone)
    if start is None:
        return None
    local = start.astimezone(ZoneInfo(timezone))
    # Where clocks are set forward at midnight, the day begins at one: the next one does not.
    naive = datetime.combine(local.date(), time.min)
    match window:
        case "hour":
            return start + timedelta(hours=1)
        case "day":
            following = naive + timedelta(days=1)
        case "week":
            following = naive + timedelta(days=7)
        case _:
            following = (naive.replace(day=28) + timedelta(days=4)).replace(day=1)
    return following.replace(tzinfo=local.tzinfo).astimezone(UTC)
