"""The panels of the dashboards as a page of plain charts: a look at their data where there is no Grafana."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_COLORS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0")
_W, _H = 400, 130


@dataclass(frozen=True)
class Line:
    """A series with its legend."""

    legend: str
    points: Sequence[tuple[float, float]]


def legend_of(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template) or "value"


def page(boards: dict[str, list[tuple[str, dict[str, Any], list[Line]]]]) -> str:
    """Board → its panels, each with a heading of a row, the panel and its lines."""
    parts = ["<style>body{background:#111;color:#ccc;font:12px sans-serif}figure{display:inline-block;margin:4px;"
             "padding:6px;background:#1b1b1f;vertical-align:top;width:400px}h2{margin:14px 4px 2px}"
             "figcaption{font-weight:bold;margin-bottom:4px}</style>"]  # fmt: skip
    for title, panels in boards.items():
        parts.append(f"<h2>{html.escape(title)}</h2>")
        parts += [_figure(panel, lines) for _, panel, lines in panels]
    return "".join(parts)


def _figure(panel: dict[str, Any], lines: list[Line]) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    drawn = _chart(lines) if any(line.points for line in lines) else "<i>no data</i>"
    last = [f'<div style="color:{_COLORS[at % 8]}">{html.escape(line.legend)}: {_value(line.points[-1][1], unit)}</div>'
            for at, line in enumerate(lines[:8]) if line.points]  # fmt: skip
    return f"<figure><figcaption>{html.escape(panel['title'])}</figcaption>{drawn}{''.join(last)}</figure>"


def _chart(lines: list[Line]) -> str:
    points = [point for line in lines for point in line.points]
    begin, end = min(x for x, _ in points), max(x for x, _ in points)
    most = max(max(y for _, y in points), 1e-9)

    def path(line: Line) -> str:
        return " ".join(
            f"{(x - begin) / max(1, end - begin) * _W:.1f},{_H - y / most * (_H - 6):.1f}" for x, y in line.points
        )

    drawn = "".join(f'<polyline fill="none" stroke="{_COLORS[at % 8]}" stroke-width="1.5" points="{path(line)}"/>'
                    for at, line in enumerate(lines) if line.points)  # fmt: skip
    return f'<svg width="{_W}" height="{_H}" style="background:#141417">{drawn}</svg>'


def _value(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{value:.1%}"
        case "currencyUSD":
            return f"${value:.4f}"
        case "bytes":
            return f"{value / 2**20:.0f} MiB"
        case _ if unit.startswith("count:"):
            return f"{value:.4g} {unit.removeprefix('count:')}"
        case _:
            return f"{value:.4g}{' s' if unit == 's' else '/s' if unit in ('ops', 'reqps') else ''}"
