"""A clock for models, which do not know what day it is."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from langchain_core.tools import StructuredTool, ToolException

_REGIONS: Final = ("Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


def time_in(zone: str, *, now: datetime | None = None) -> str:
    """The date and time in an IANA time zone (`Asia/Tokyo`) or a city that has one (`Tokyo`), as a sentence.

    Raises:
        ValueError: when there is no such time zone.
    """
    name = _zone_name(zone)
    tz = UTC if name == "UTC" else ZoneInfo(name)
    local = (now or datetime.now(UTC)).astimezone(tz)
    offset = local.strftime("%z")
    return f"{name}: {local:%A, %d %B %Y, %H:%M:%S} (UTC{offset[:3]}:{offset[3:]})"


def zones_named_in(text: str) -> list[str]:
    """IANA names of the cities that a text names, in the order of the text."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    found: list[str] = []
    at = 0
    while at < len(words):
        # Cities have up to three words; the longest match wins (`New York`, not `York`).
        size = next((n for n in (3, 2, 1) if " ".join(words[at : at + n]) in _cities()), 0)
        if size:
            found.append(_cities()[" ".join(words[at : at + size])])
        at += size or 1
    return list(dict.fromkeys(found))


def _zone_name(zone: str) -> str:
    wanted = zone.strip()
    if wanted.lower() in {"", "utc", "gmt", "z"}:
        return "UTC"
    if wanted in available_timezones():
        return wanted
    city = _cities().get(wanted.lower().replace("_", " "))
    if city is None:
        raise ValueError(f"There is no time zone {wanted[:60]!r}. Use an IANA name such as Europe/Berlin, or UTC.")
    return city


@cache
def _cities() -> Mapping[str, str]:
    zones = sorted(zone for zone in available_timezones() if zone.split("/")[0] in _REGIONS)
    return {zone.rsplit("/", 1)[-1].replace("_", " ").lower(): zone for zone in zones}


def _clock(timezone: str = "UTC") -> str:
    """The current date and time in a time zone, given by its IANA name such as `Europe/Berlin`."""
    try:
        return time_in(timezone)
    except ValueError as error:
        raise ToolException(str(error)) from None


clock = StructuredTool.from_function(func=_clock, name="clock", handle_tool_error=True)
