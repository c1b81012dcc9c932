"""The clock tells the time in time zones and cities, and knows what it does not know."""

from datetime import UTC, datetime

import pytest

from clock import clock, time_in, zones_named_in

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "time"),
    [
        ("UTC", "UTC: Wednesday, 01 July 2026, 12:00:00 (UTC+00:00)"),
        ("Asia/Tokyo", "Asia/Tokyo: Wednesday, 01 July 2026, 21:00:00 (UTC+09:00)"),
        ("new york", "America/New_York: Wednesday, 01 July 2026, 08:00:00 (UTC-04:00)"),
    ],
)
def test_tells_the_time_of_a_zone_or_a_city(zone: str, time: str) -> None:
    assert time_in(zone, now=NOON) == time


def test_finds_cities_in_the_order_of_the_text() -> None:
    assert zones_named_in("Is it later in Tokyo, in New York or in London?") == [
        "Asia/Tokyo",
        "America/New_York",
        "Europe/London",
    ]


@pytest.mark.parametrize("zone", ["Atlantis", "../../etc/passwd", "/etc/localtime", "Europe/\0", "x" * 10_000])
def test_unknown_zone_comes_back_to_the_model_as_an_error_message(zone: str) -> None:
    message = clock.invoke({"type": "tool_call", "name": "clock", "args": {"timezone": zone}, "id": "1"})

    assert message.status == "error"
    assert message.content.startswith("There is no time zone")
