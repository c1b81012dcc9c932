"""What `waystation bench` says of a load as one PNG: the figures, and the plots of the page."""

# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
# matplotlib's stubs leave the **kwargs of its methods, and a kind of path, without a type.

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

from waystation.cli.bench_load import Load, Outcome, Sample
from waystation.cli.bench_report import BAD, GOOD, duration, ended_by_second, headline, nice, shares, succeeded
from waystation.cli.failures import UsageError

try:
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError:
    raise UsageError("a picture needs matplotlib: pip install 'waystation[plots]'") from None

_INCHES: Final = (12.0, 12.0)
_DPI: Final = 100
_COLUMNS: Final = 120
"""Characters of the headline that fit."""


def as_picture(load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> bytes:
    """A PNG of 1200 x 1200 pixels: the figures, latency over time, its distribution, runs per second."""
    # Settings of the user's own (LaTeX, a dark style) are for the user's own figures. Setting `backend` loads pyplot.
    defaults: Any = {name: value for name, value in rcParamsDefault.items() if not name.startswith("backend")}
    with rc_context({**defaults, "agg.path.chunksize": 20_000}), warnings.catch_warnings():
        # A graph's name in a script that the font lacks shows as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=_INCHES, dpi=_DPI)
        _tell(figure, load, outcome, info, at=at)
        over_time, distribution, per_second = figure.subplots(3, 1, squeeze=True)
        figure.subplots_adjust(left=0.08, right=0.96, top=0.81, bottom=0.04, hspace=0.32)
        _scatter(over_time, outcome.samples)
        _distribution(distribution, succeeded(outcome.samples))
        _bars(per_second, outcome.samples)
        written = io.BytesIO()
        FigureCanvasAgg(figure).print_png(written)
    return written.getvalue()


def _tell(figure: Figure, load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> None:
    title, told = headline(load, outcome, info, at=at)
    # Without math: a `$` of a name is one.
    figure.text(0.03, 0.97, _fitting(title, _COLUMNS * 3 // 4), size=16, weight="bold", va="top", parse_math=False)
    text = "\n".join(_fitting(line, _COLUMNS) for line in told[:5])  # errors would need more room
    figure.text(0.03, 0.945, text, size=11, family="monospace", va="top", linespacing=1.5, parse_math=False)


def _fitting(line: str, columns: int) -> str:
    return line if len(line) <= columns else line[: columns - 1] + "…"


def _scatter(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.set_title("Latency over time", loc="left")
    if not samples:
        _nothing(axes, "nothing was measured")
        return
    last = max(sample.due_s for sample in samples) or 1.0
    _frame(axes, x_max=last, y_max=nice(max(sample.total_s for sample in samples)), y_text=duration)
    failed = [sample for sample in samples if sample.error is not None]
    kinds = (("succeeded", succeeded(samples), GOOD, 0.6), ("failed", failed, BAD, 1.0))
    for name, shown, color, opacity in kinds:
        if shown:
            due, total = [sample.due_s for sample in shown], [sample.total_s for sample in shown]
            dots = axes.plot(due, total, ".", color=color, alpha=opacity, markersize=6, markeredgewidth=0, label=name)
            dots[0].set(clip_on=False, zorder=3)  # whole at the edges
    axes.legend(loc="upper right", bbox_to_anchor=(1, 1.17), ncols=2, frameon=False, markerscale=2)


def _distribution(axes: Axes, good: Sequence[Sample]) -> None:
    axes.set_title("Share of runs within a time", loc="left")
    if not good:
        _nothing(axes, "no run succeeded")
        return
    points = shares([sample.total_s for sample in good])
    _frame(axes, x_max=nice(points[-1][0]), y_max=100, y_text=lambda part: f"{part:.0f} %")
    style = "-" if len(points) > 1 else "."  # one point is no line
    drawn = axes.plot([value for value, _ in points], [share * 100 for _, share in points], style, color=GOOD)
    drawn[0].set(linewidth=2, clip_on=False, zorder=3)


def _bars(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.set_title("Runs that ended, per second", loc="left")
    ends = ended_by_second(samples)
    if not ends:
        _nothing(axes, "no run succeeded")
        return
    _frame(axes, x_max=max(ends) + 1, y_max=nice(max(ends.values())), y_text=lambda count: f"{count:g}")
    # One filled line: a bar each would be thousands of objects after a load of hours.
    edges = range(max(ends) + 1)
    axes.stairs([ends.get(second, 0) for second in edges], range(max(ends) + 2), fill=True, color=GOOD)


def _frame(axes: Axes, *, x_max: float, y_max: float, y_text: Callable[[float], str]) -> None:
    quarters = [n / 4 for n in range(5)]
    axes.set_xlim(0, x_max)
    axes.set_ylim(0, y_max)
    axes.set_xticks([x_max * part for part in quarters], [duration(x_max * part) for part in quarters])
    axes.set_yticks([y_max * part for part in quarters], [y_text(y_max * part) for part in quarters])
    axes.grid(visible=True, color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _nothing(axes: Axes, why: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#555555")
