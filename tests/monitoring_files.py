"""What is below `deploy/`, as tests read it: rules, dashboards, and the metrics that their queries name."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from waystation.telemetry import metrics

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RUNBOOKS = "docs/operations/runbooks"

TARGET_LABELS = frozenset({"namespace", "pod", "job", "instance"})
"""Put on by whoever scrapes."""
FOREIGN: dict[str, frozenset[str]] = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
    # postgres-exporter and redis-exporter; `bench/monitoring.py` asks real ones.
    "pg_up": frozenset(),
    "pg_stat_activity_count": frozenset({"state"}),
    "pg_settings_max_connections": frozenset(),
    "pg_stat_database_xact_commit": frozenset(),
    "pg_stat_database_xact_rollback": frozenset(),
    "redis_up": frozenset(),
    "redis_memory_used_bytes": frozenset(),
    "redis_memory_max_bytes": frozenset(),
}
"""Metrics of others, with their labels."""

_WORDS = {"by", "on", "without", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool"}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACES = re.compile(r"\{[^}]*\}")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^]]*\]")
_OFFSET = re.compile(r"\boffset\s+\w+")
_NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])")


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and where it stands."""

    where: str
    expr: str
    legend: str = ""

    @property
    def names(self) -> set[str]:
        """The metrics that it reads."""
        bare = _OFFSET.sub("", _RANGE.sub("", _GROUPING.sub("", _BRACES.sub("", _STRING.sub('""', self.expr)))))
        return set(_NAME.findall(bare)) - _WORDS

    @property
    def labels(self) -> set[str]:
        """The labels that it selects or groups by, and those of its legend."""
        bare = _STRING.sub('""', self.expr)
        selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", " ".join(_BRACES.findall(bare)))
        grouped = [label.strip() for part in _GROUPING.findall(bare) for label in part.split(",")]
        return {*selected, *grouped, *re.findall(r"\{\{(\w+)\}\}", self.legend)} - {""}


@cache
def exported() -> dict[str, frozenset[str]]:
    """Every series that a process of ours shows → its labels."""
    found: dict[str, frozenset[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.collect()
            labels = frozenset(cast("tuple[str, ...]", cast(Any, metric)._labelnames))
            for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",)):
                found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set[str]())
    own = (family for family in REGISTRY.collect() if family.name.startswith("process_"))
    return found | {sample.name: frozenset[str]() for family in own for sample in family.samples}


def rules() -> list[dict[str, Any]]:
    """All rules of all files, recording and alerting."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((PROMETHEUS / "rules").glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


@cache
def recorded() -> dict[str, frozenset[str]]:
    """Series that recording rules make. Their names begin with their labels."""
    names = [rule["record"] for rule in rules() if "record" in rule]
    return {name: frozenset(name.split(":")[0].split("_")) for name in names}


def dashboards() -> dict[str, dict[str, Any]]:
    """File name → dashboard."""
    return {path.name: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def asked_by_rules() -> list[Asked]:
    return [Asked(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def asked_by_dashboards() -> list[Asked]:
    """The queries of panels, annotations and variables."""
    found: list[Asked] = []
    for name, board in dashboards().items():
        for panel in board["panels"]:
            where = f"{name}: {panel['title']}"
            found += [Asked(where, one["expr"], one["legendFormat"]) for one in panel.get("targets", ())]
        shown = board["annotations"]["list"]
        found += [Asked(f"{name}: {one['name']}", one["expr"], one["titleFormat"]) for one in shown]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()  # pyright: ignore[reportOptionalMemberAccess]  # a failure is the answer
                found.append(Asked(f"{name}: ${variable['name']}", f"sum by ({label}) ({metric})"))
    return found


def plain(expr: str, *, interval: str = "1m", shown: str = "5m") -> str:
    """A dashboard's query as Grafana would send it, with all variables at All."""
    sent = expr.replace("$__rate_interval", interval).replace("$__range", shown)
    return re.sub(r"\$\w+", ".*", sent)


def promtool() -> str:
    """The command; skips the test where it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found
