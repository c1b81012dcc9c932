"""The table: a line per figure, a column per contender; median and range of the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.measuring import Measured
from bench.workloads import FIGURES, Figure

# For each contender, the measurements of each workload, one per round.
Results = Mapping[str, Mapping[str, Sequence[Measured]]]


def render(results: Results) -> str:
    """Markdown, aligned so that it can be read as it is."""
    rows = [["", "target", *results]]
    for figure in FIGURES:
        cells = [_cell(figure, results[name].get(figure.workload, ())) for name in results]
        if any(cells):
            rows.append([figure.title, figure.target, *(cell or "-" for cell in cells)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(figure: Figure, rounds: Sequence[Measured]) -> str:
    values = [measured[figure.key] for measured in rounds if measured.get(figure.key)]
    if not values:
        return ""
    shown = _number(median(values))
    if len(values) > 1:
        shown += f" ({_number(min(values))} to {_number(max(values))})"
    return shown + _parts(figure, rounds)


def _parts(figure: Figure, rounds: Sequence[Measured]) -> str:
    """Who used the CPU, where more than one did."""
    names = [key for key in rounds[0] if key.startswith(f"{figure.key} ")]
    if len(names) < 2:
        return ""
    return " = " + " + ".join(_number(median([measured[name] for measured in rounds])) for name in names)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
