"""The picture of `waystation bench --report bench.png`."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import sys

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from waystation.cli.bench_load import Load, Outcome, Sample
from waystation.cli.bench_picture import as_picture

LOAD = Load("http://127.0.0.1:2024", "agent")
GOOD, BAD = (0x25, 0x63, 0xEB), (0xDC, 0x26, 0x26)


def colors(samples: list[Sample], *, load: Load = LOAD) -> dict[tuple[int, int, int], int]:
    """How many pixels have each colour."""
    data = as_picture(load, Outcome(samples, 1.0), {"version": "1"}, at="now")
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 1200))
        pixels = picture.convert("RGB")
    counted = pixels.getcolors(maxcolors=1 << 24) or []
    return {color: count for count, color in counted if isinstance(color, tuple) and len(color) == 3}


def test_failed_runs_are_red_and_the_others_blue() -> None:
    good = [Sample(n / 10, 0, 0.1 + n / 100) for n in range(20)]
    assert BAD not in colors(good)
    assert GOOD in colors(good)
    mixed = colors([*good, Sample(1.05, 0, 0.4, error="HTTP 500: oh")])
    assert BAD in mixed
    assert GOOD in mixed


def test_no_run_that_succeeded_and_none_at_all_are_pictures() -> None:
    failed = colors([Sample(0, 0, 1.0, error="HTTP 500: oh")])
    assert BAD in failed
    assert GOOD not in failed
    nothing = colors([])
    assert BAD not in nothing
    assert GOOD not in nothing


def test_one_run_is_seen_in_each_plot() -> None:
    data = as_picture(LOAD, Outcome([Sample(0, 0, 0.3)], 1.0), {}, at="now")
    with Image.open(io.BytesIO(data)) as picture:
        pixels = picture.convert("RGB")
    for top in (190, 530, 860):
        seen = pixels.crop((60, top, 1190, top + 320)).getcolors(maxcolors=1 << 24) or []
        assert any(isinstance(color, tuple) and color[2] - color[0] > 60 for _, color in seen), f"from {top}"


@given(st.lists(st.builds(Sample, *[st.floats(0, 1e4)] * 3, error=st.sampled_from([None, "x"])), max_size=5))
@settings(max_examples=10, deadline=None)
def test_whatever_was_measured_is_a_picture(samples: list[Sample]) -> None:
    assert colors(samples)


@pytest.mark.parametrize("name", ["$", "$x$", r"\frac{", "图" * 3, "x" * 500, "a\nb"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    assert colors([Sample(0, 0, 1.0)], load=Load(f"http://{name}", name))


def test_settings_of_the_users_own_change_nothing_and_stay() -> None:
    sample = Sample(0, 0, 1.0)
    before = colors([sample])
    with mpl.rc_context({"text.usetex": True, "axes.facecolor": "black", "lines.marker": "o"}):
        assert colors([sample]) == before
        assert mpl.rcParams["axes.facecolor"] == "black"
    assert "matplotlib.pyplot" not in sys.modules
