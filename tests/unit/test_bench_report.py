"""The figures and plots of `waystation bench`."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.cli.bench_load import Load, Outcome, Sample
from waystation.cli.bench_report import as_page, lines, percentiles, summary

LOAD = Load("http://127.0.0.1:2024", "<agent>")


def samples() -> st.SearchStrategy[list[Sample]]:
    seconds = st.floats(0, 1e4)
    errors = st.sampled_from([None, None, "HTTP 500: <b>", "no end within 1 s"])
    return st.lists(st.builds(Sample, seconds, seconds, seconds, st.none() | seconds, st.integers(0, 9), errors))


def test_percentiles_are_measured_values_by_nearest_rank() -> None:
    assert percentiles([]) == {}
    assert percentiles([3.0]) == {0.5: 3.0, 0.9: 3.0, 0.95: 3.0, 0.99: 3.0, 1.0: 3.0}
    assert percentiles([float(n) for n in range(1, 101)]) == {0.5: 50.0, 0.9: 90.0, 0.95: 95.0, 0.99: 99.0, 1.0: 100.0}


def test_failed_runs_are_in_no_percentile() -> None:
    good, bad = Sample(0, 0, 1.0), Sample(0, 0, 99.0, error="HTTP 503: busy")
    found = summary(Outcome([good, bad, bad, good], 2.0))
    assert (found.runs, found.failed, found.error_rate, found.runs_per_s) == (4, 2, 0.5, 1.0)
    assert found.total_s[1.0] == 1.0
    assert found.errors == {"HTTP 503: busy": 2}
    assert any("2 x HTTP 503: busy" in line for line in lines(LOAD, found))


@given(samples())
def test_a_page_is_well_formed_whatever_was_measured(measured: list[Sample]) -> None:
    page = as_page(LOAD, Outcome(measured, 1.0), {"version": "<1>"}, at="now")
    root = ElementTree.fromstring(page.split("\n", 1)[1].replace('<meta charset="utf-8">', "").replace("<br>", ""))
    assert "&lt;agent&gt;" in page
    assert "<b>" not in page
    circles = list(root.iter("circle"))
    assert len(circles) == len(measured)
    for mark in circles:
        assert 0 <= float(mark.attrib["cx"]) <= 900
        assert 0 <= float(mark.attrib["cy"]) <= 260


def test_nothing_measured_divides_by_nothing() -> None:
    assert summary(Outcome([], 0.0)).error_rate == 0.0
    with pytest.raises(KeyError):
        _ = summary(Outcome([], 0.0)).total_s[0.5]
