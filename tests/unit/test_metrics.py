"""Every metric is exported, changed by somebody, and documented as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

from waystation.telemetry import metrics
from waystation_guards.budget.limits import Scope

ROOT = Path(__file__).parents[2]
METRICS: dict[str, Counter | Gauge | Histogram] = {
    name: value for name, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram)
}
_HELP = re.compile(r"^# HELP ((?:waystation|agent)_\S+) (.*)$\n# TYPE \S+ (\w+)$", re.MULTILINE)


def exported() -> dict[str, tuple[str, str]]:
    """Name → type and sentence of our metrics, as a scrape shows them."""
    text = generate_latest(REGISTRY).decode()
    found = {name: (kind, sentence) for name, sentence, kind in _HELP.findall(text)}
    return {name: about for name, about in found.items() if not name.endswith("_created")}


@pytest.mark.parametrize("name", METRICS)
def test_somebody_changes_the_metric(name: str) -> None:
    uses = re.compile(rf"\b{name}\.(labels|inc|set|set_function|observe|time)\(")
    sources = [path for path in (ROOT / "server").rglob("*.py") if uses.search(path.read_text())]
    assert sources, f"{name} is declared and never changed"


def test_all_are_exported_with_units_in_their_names() -> None:
    assert len(exported()) == len(METRICS)
    for name, (kind, _) in exported().items():
        assert kind != "counter" or name.endswith("_total")
        assert kind != "histogram" or name.endswith(("_seconds", "_supersteps"))


def test_docs_say_what_is_exported() -> None:
    rows = re.findall(
        r"^\| `((?:waystation|agent)_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.M
    )
    assert {name: (kind, sentence) for name, kind, _, sentence in rows} == exported()
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels, _ in rows}
    assert documented == {_exported_name(metric): set(_labels(metric)) for metric in METRICS.values()}


def _exported_name(metric: Any) -> str:
    (family,) = metric.collect()
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(metric: Any) -> tuple[str, ...]:
    return metric._labelnames


def test_alerts_of_every_scope_of_budgets_begin_at_zero() -> None:
    """The increase of a series that begins with its first alert would be none."""
    there = {sample.labels["scope"] for family in metrics.GUARD_ALERTS.collect() for sample in family.samples}
    assert there == set(get_args(Scope))
