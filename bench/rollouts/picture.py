"""A picture of curves over one time axis, panel below panel: an SVG file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 900, 170, 60, 20, 34, 44
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (seconds, value), drawn as a line, as steps, or as dots."""

    name: str
    colour: str
    points: Points
    form: str = "line"


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with one scale."""

    title: str
    curves: Sequence[Curve]

    @property
    def top(self) -> float:
        """The end of the scale: a round number above every value."""
        highest = max((value for curve in self.curves for _, value in curve.points), default=1.0) or 1.0
        power = 10.0 ** (len(str(int(highest))) - 1)
        return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= highest)


def drawn(title: str, panels: Sequence[Panel], *, seconds: float) -> str:
    """The picture."""
    height = TOP + len(panels) * (PANEL + GAP)
    body = "".join(_panel(panel, TOP + n * (PANEL + GAP), seconds) for n, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        "<style>text{font:12px system-ui,sans-serif;fill:#444}.t{font-weight:600}.g{stroke:#e3e3e3}</style>"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/><text class="t" x="{LEFT}" y="18">{escape(title)}</text>'
        f"{body}</svg>\n"
    )


def _panel(panel: Panel, y: float, seconds: float) -> str:
    top, bottom = y + 20, y + PANEL
    parts = [f'<text x="{LEFT}" y="{y + 12}">{escape(panel.title)}</text>']
    x = LEFT + 9 * len(panel.title)
    for curve in panel.curves:
        parts.append(
            f'<rect x="{x}" y="{y + 3}" width="10" height="10" fill="{curve.colour}"/>'
            f'<text x="{x + 14}" y="{y + 12}">{escape(curve.name)}</text>'
        )
        x += 34 + 7 * len(curve.name)
    for n in range(5):
        at = bottom - (bottom - top) * n / 4
        parts.append(
            f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{panel.top * n / 4:g}</text>'
        )
    parts += [
        f'<text x="{_x(at, seconds):.1f}" y="{bottom + 15}" text-anchor="middle">{at:.0f} s</text>'
        for at in (seconds * n / 6 for n in range(7))
    ]
    parts += [_curve(curve, panel.top, top, bottom, seconds) for curve in panel.curves]
    return "".join(parts)


def _x(at: float, seconds: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * min(1.0, at / seconds)


def _curve(curve: Curve, highest: float, top: float, bottom: float, seconds: float) -> str:
    at = [(_x(second, seconds), bottom - (bottom - top) * value / highest) for second, value in curve.points]
    if curve.form == "dots":
        dots = (f'<circle r="1.4" fill-opacity=".45" cx="{x:.1f}" cy="{y:.1f}"/>' for x, y in at)
        return f'<g fill="{curve.colour}">{"".join(dots)}</g>'
    if curve.form == "steps":
        at = [*(point for before, now in pairwise(at) for point in (before, (now[0], before[1]))), *at[-1:]]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    return f'<polyline fill="none" stroke="{curve.colour}" stroke-width="1.8" points="{points}"/>'
