"""What `waystation bench` says of a load: figures on the terminal, a page with plots, JSON for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import ceil, log10
from typing import Any, Final

from waystation.cli.bench_load import Load, Outcome, Sample

PARTS: Final = (0.5, 0.9, 0.95, 0.99, 1.0)
GOOD: Final = "#2563eb"
BAD: Final = "#dc2626"


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in seconds; percentiles by their part, the last one the maximum. Failed runs are in no percentile."""

    runs: int
    failed: int
    took_s: float
    runs_per_s: float
    total_s: dict[float, float]
    first_s: dict[float, float]
    events: int
    errors: dict[str, int]

    @property
    def error_rate(self) -> float:
        return self.failed / self.runs if self.runs else 0.0


def summary(outcome: Outcome) -> Summary:
    """The figures of a load."""
    good = succeeded(outcome.samples)
    errors = Counter(sample.error for sample in outcome.samples if sample.error is not None)
    return Summary(
        runs=len(outcome.samples),
        failed=len(outcome.samples) - len(good),
        took_s=outcome.took_s,
        runs_per_s=len(good) / outcome.took_s if outcome.took_s else 0.0,
        total_s=percentiles([sample.total_s for sample in good]),
        first_s=percentiles([sample.first_s for sample in good if sample.first_s is not None]),
        events=sum(sample.events for sample in good),
        errors=dict(errors.most_common()),
    )


def succeeded(samples: Sequence[Sample]) -> list[Sample]:
    """Those without an error, in their order."""
    return [sample for sample in samples if sample.error is None]


def percentiles(values: Sequence[float]) -> dict[float, float]:
    """By nearest rank: each figure is one that was measured. Empty for no values."""
    ranked = sorted(values)
    return {part: ranked[max(0, ceil(part * len(ranked)) - 1)] for part in PARTS} if ranked else {}


def lines(load: Load, found: Summary) -> list[str]:
    """What the terminal shows."""
    shown = [
        f"{found.runs} runs of {load.graph!r} by {load.mode}, {load.clients} clients"
        + (f", {load.rate:g} per second" if load.rate else "")
        + f", in {found.took_s:.1f} s",
        f"  {found.runs_per_s:.1f} runs/s succeeded, {found.failed} failed ({found.error_rate:.1%})",
        _row("latency", found.total_s),
    ]
    if found.first_s:
        shown.append(_row("first event", found.first_s))
        shown.append(f"  {found.events} events, {found.events / found.took_s:.0f} per second")
    shown += [f"  {count} x {error}" for error, count in list(found.errors.items())[:10]]
    return shown


def headline(load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> tuple[str, list[str]]:
    """A title, and the lines below it: the runs, how many succeeded, the server, then percentiles and errors."""
    ran, ended, *more = lines(load, summary(outcome))
    server = f"  server {info.get('version', 'unknown')}{'; stopped before its end' if outcome.cut_short else ''}"
    return f"{load.graph} on {load.url}, {at}", [ran, ended, server, *more]


def shares(values: Sequence[float]) -> list[tuple[float, float]]:
    """Each value in ascending order, and which part of them, up to 1, is no larger."""
    return [(value, (n + 1) / len(values)) for n, value in enumerate(sorted(values))]


def ended_by_second(samples: Sequence[Sample]) -> Counter[int]:
    """How many runs succeeded in each second since the load began."""
    return Counter(int(sample.due_s + sample.total_s) for sample in succeeded(samples))


def _row(name: str, at: dict[float, float]) -> str:
    told = "  ".join(f"{'max' if part == 1 else f'p{part * 100:g}'} {duration(value)}" for part, value in at.items())
    return f"  {name:<12} {told or '-'}"


def duration(seconds: float) -> str:
    """`295.3 ms` or `2.40 s`."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def as_json(load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> dict[str, Any]:
    """Everything, for machines. Headers stay out: they may hold keys."""
    told = {name: value for name, value in asdict(load).items() if name != "headers"}
    return {
        "at": at,
        "server": info,
        "load": told,
        "cut_short": outcome.cut_short,
        "summary": asdict(summary(outcome)),
        "samples": [asdict(sample) for sample in outcome.samples],
    }


def as_page(load: Load, outcome: Outcome, info: dict[str, Any], *, at: str) -> str:
    """One HTML file without scripts: the figures, latency over time, its distribution, runs per second."""
    found = summary(outcome)
    title, told = headline(load, outcome, info, at=at)
    head = escape(title)
    rows = "\n".join(
        f"<tr><th>{name}</th>" + "".join(f"<td>{duration(value)}</td>" for value in at_parts.values()) + "</tr>"
        for name, at_parts in (("latency", found.total_s), ("first event", found.first_s))
        if at_parts
    )
    heads = "".join(f"<th>{'max' if part == 1 else f'p{part * 100:g}'}</th>" for part in PARTS)
    errors = "".join(f"<li>{count} × {escape(error)}</li>" for error, count in found.errors.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>waystation bench: {head}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem }}
svg {{ width: 100%; height: auto; margin: .5rem 0 1.5rem }} text {{ font: 11px system-ui, sans-serif; fill: #555 }}
.grid {{ stroke: #e4e4e4 }} .good {{ fill: {GOOD} }} .bad {{ fill: {BAD} }} .line {{ stroke: {GOOD}; fill: none }}
</style></head><body>
<h1>{head}</h1>
<p>{"<br>".join(escape(line.strip()) for line in told[:3])}</p>
<table><tr><th></th>{heads}</tr>{rows}</table>
{f"<h2>Errors</h2><ul>{errors}</ul>" if errors else ""}
<h2>Latency over time</h2>{_scatter(outcome.samples)}
<h2>Share of runs within a time</h2>{_distribution([sample.total_s for sample in succeeded(outcome.samples)])}
<h2>Runs that ended, per second</h2>{_bars(outcome.samples)}
</body></html>
"""


_WIDTH: Final = 900
_HEIGHT: Final = 260
_LEFT: Final = 70
_BOTTOM: Final = 30


def _x(part: float) -> float:
    return _LEFT + part * (_WIDTH - _LEFT - 10)


def _y(part: float) -> float:
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _BOTTOM - 10)


def _frame(
    marks: str, *, x_max: float, x_text: Callable[[float], str], y_max: float, y_text: Callable[[float], str]
) -> str:
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{_y(n / 4):.1f}" y2="{_y(n / 4):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(n / 4) + 4:.1f}" text-anchor="end">{y_text(y_max * n / 4)}</text>'
        f'<text x="{_x(n / 4):.1f}" y="{_HEIGHT - 10}" text-anchor="{"end" if n == 4 else "middle"}">'
        f"{x_text(x_max * n / 4)}</text>"
        for n in range(5)
    )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{grid}{marks}</svg>'


def nice(value: float) -> float:
    """Where an axis may end: the next 1, 2 or 5 of a power of ten."""
    if value < 1e-6:
        return 1e-6
    power = 10 ** ceil(log10(value) - 1)
    return next((step * power for step in (1, 2, 5) if step * power >= value), 10 * power)


def _scatter(samples: Sequence[Sample]) -> str:
    if not samples:
        return "<p>nothing was measured</p>"
    last = max(sample.due_s for sample in samples) or 1.0
    most = nice(max(sample.total_s for sample in samples))
    marks = "".join(
        f'<circle class="{"bad" if sample.error else "good"}" r="2" fill-opacity=".5" '
        f'cx="{_x(sample.due_s / last):.1f}" cy="{_y(sample.total_s / most):.1f}"/>'
        for sample in samples
    )
    return _frame(marks, x_max=last, x_text=duration, y_max=most, y_text=duration)


def _distribution(values: Sequence[float]) -> str:
    if not values:
        return "<p>no run succeeded</p>"
    ranked = shares(values)
    most = nice(ranked[-1][0])
    points = " ".join(f"{_x(value / most):.1f},{_y(share):.1f}" for value, share in ranked)
    line = f'<polyline class="line" stroke-width="2" points="{points}"/>'
    return _frame(line, x_max=most, x_text=duration, y_max=100, y_text=lambda part: f"{part:.0f} %")


def _bars(samples: Sequence[Sample]) -> str:
    ends = ended_by_second(samples)
    if not ends:
        return "<p>no run succeeded</p>"
    seconds, most = max(ends) + 1, nice(max(ends.values()))
    width = max(0.5, (_x(1) - _x(0)) / seconds - 1)
    marks = "".join(
        f'<rect class="good" x="{_x(second / seconds):.1f}" y="{_y(count / most):.1f}" width="{width:.1f}" '
        f'height="{_y(0) - _y(count / most):.1f}"/>'
        for second, count in ends.items()
    )
    return _frame(marks, x_max=seconds, x_text=duration, y_max=most, y_text=lambda count: f"{count:g}")
