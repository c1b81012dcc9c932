"""When crons fire: fields, zones, and the nights when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from waystation.errors import InvalidRequest
from waystation.runs.cron_firing import LATE, MOST_MISSED, Missed, plan
from waystation.runs.schedules import Schedule, parse_schedule

NOON = datetime(2026, 3, 7, 12, tzinfo=UTC)
NEW_YORK = "America/New_York"


def ticks(schedule: str, zone: str | None, after: datetime, count: int = 3) -> list[str]:
    """The next ticks on the zone's clocks."""
    parsed = parse_schedule(schedule, zone, now=after)
    found: list[str] = []
    for _ in range(count):
        after = parsed.after(after) or after
        found.append(after.astimezone(parsed.zone).strftime("%m-%d %H:%M:%S %z"))
    return found


def test_five_fields_are_minute_hour_day_month_weekday() -> None:
    assert ticks("30 9 * * 1-5", None, NOON) == ["03-09 09:30:00 +0000", "03-10 09:30:00 +0000", "03-11 09:30:00 +0000"]


def test_a_sixth_field_is_the_second() -> None:
    assert ticks("* * * * * */20", None, NOON) == [
        "03-07 12:00:20 +0000",
        "03-07 12:00:40 +0000",
        "03-07 12:01:00 +0000",
    ]
    assert ticks("0 3 * * * 15", None, NOON, 1) == ["03-08 03:00:15 +0000"]


def test_the_usual_names_stand_for_schedules() -> None:
    assert ticks("@hourly", None, NOON, 1) == ticks("0 * * * *", None, NOON, 1)
    assert ticks("@Daily", NEW_YORK, NOON, 1) == ["03-08 00:00:00 -0500"]


@pytest.mark.parametrize("schedule", ["30 2 * * *", "30 2 * * * 15", "15,45 2 * * *"])
def test_a_time_that_the_clocks_skip_fires_once_at_the_first_moment_after(schedule: str) -> None:
    first, second, *_ = ticks(schedule, NEW_YORK, NOON)
    assert first == "03-08 03:00:00 -0400"
    assert second.startswith("03-09 02:")


def test_a_skipped_time_beside_one_that_exists_fires_once() -> None:
    assert ticks("30 2,3 * * *", NEW_YORK, NOON, 3) == [
        "03-08 03:00:00 -0400",
        "03-08 03:30:00 -0400",
        "03-09 02:30:00 -0400",
    ]
    assert ticks("0 2,3 * * *", NEW_YORK, NOON, 2) == ["03-08 03:00:00 -0400", "03-09 02:00:00 -0400"]


@pytest.mark.parametrize("schedule", ["30 1 * * *", "30 1 * * * 0"])
def test_a_time_that_exists_twice_fires_the_first_time_only(schedule: str) -> None:
    before = datetime(2026, 10, 31, 12, tzinfo=UTC)
    assert ticks(schedule, NEW_YORK, before, 2) == ["11-01 01:30:00 -0400", "11-02 01:30:00 -0500"]


@pytest.mark.parametrize("minutes", [31, 50, 70, 95])
def test_within_the_hour_that_is_repeated_it_does_not_fire_again(minutes: int) -> None:
    after = datetime(2026, 11, 1, 5, tzinfo=UTC) + timedelta(minutes=minutes)
    assert ticks("30 1 * * *", NEW_YORK, after, 1) == ["11-02 01:30:00 -0500"]


def test_every_hour_has_its_tick_also_when_it_is_repeated() -> None:
    after = datetime(2026, 11, 1, 4, 30, tzinfo=UTC)
    assert ticks("0 * * * *", NEW_YORK, after, 3) == [
        "11-01 01:00:00 -0400",
        "11-01 01:00:00 -0500",
        "11-01 02:00:00 -0500",
    ]


def test_a_shift_of_half_an_hour_and_a_day_that_never_was() -> None:
    lord_howe = datetime(2026, 10, 3, 12, tzinfo=UTC)
    assert ticks("15 2 * * *", "Australia/Lord_Howe", lord_howe, 1) == ["10-04 02:30:00 +1100"]
    apia = datetime(2011, 12, 29, 23, tzinfo=UTC)
    assert ticks("0 12 * * *", "Pacific/Apia", apia, 2) == ["12-31 00:00:00 +1400", "12-31 12:00:00 +1400"]


@pytest.mark.parametrize(
    "schedule",
    [
        *("every day", "", "* * * *", "* * * * * * *", "61 * * * *", "* * * * 8", "0 0 31 2 *", "0 0 */15 4 MON#5"),
        *("*/0 * * * *", "5-1 * * * *", "٠ * * * *", "* * * * * 60", "@reboot", "1,,2 * * * *"),
        "* * * * *" + " " * 2000,
    ],
)
def test_what_is_no_schedule_or_never_fires_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidRequest, match="schedule"):
        parse_schedule(schedule, None, now=NOON)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../UTC", "/etc/localtime", "localtime", "utc", "\ud800", "A" * 999])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="timezone"):
        parse_schedule("* * * * *", zone, now=NOON)


def test_the_shortest_gap_is_found_between_uneven_ticks() -> None:
    assert Schedule("0,7 3 * * *", UTC).shortest_gap_s(NOON) == 420
    assert Schedule("* * * * * *", UTC).shortest_gap_s(NOON) == 1
    assert Schedule("0 0 29 2 *", UTC).shortest_gap_s(NOON) is None


def planned(missed: Missed, *, late: timedelta, late_firings: int = 0) -> tuple[bool, int]:
    """Whether a tick of a cron that fires each minute fires so late, and how many minutes later its next one is."""
    due = datetime(2026, 3, 7, 12, tzinfo=UTC)
    found = plan(missed, Schedule("* * * * *", UTC), due=due, now=due + late, late_firings=late_firings)
    assert found.next_tick is not None
    return found.fires, int((found.next_tick - due) / timedelta(minutes=1))


@pytest.mark.parametrize("missed", ["once", "skip", "all"])
def test_a_tick_on_time_fires_and_moves_to_the_next_one(missed: Missed) -> None:
    assert planned(missed, late=timedelta(seconds=0.2)) == (True, 1)


def test_missed_ticks_are_one_run_by_default() -> None:
    assert planned("once", late=timedelta(minutes=10, seconds=5)) == (True, 11)


def test_missed_ticks_can_be_skipped() -> None:
    assert planned("skip", late=timedelta(minutes=10, seconds=5)) == (False, 11)
    assert planned("skip", late=LATE + timedelta(seconds=1)) == (False, 1)


def test_missed_ticks_can_be_made_up_for_one_by_one_and_not_without_end() -> None:
    assert planned("all", late=timedelta(minutes=10, seconds=5)) == (True, 1)
    assert planned("all", late=timedelta(days=400), late_firings=MOST_MISSED - 1) == (True, 400 * 24 * 60 + 1)
