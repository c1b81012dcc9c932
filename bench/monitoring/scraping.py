"""A Prometheus with the very rules of `deploy/`, and what it answers."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules"
INTERVAL_S = 2


def write_configuration(folder: Path, targets: Mapping[str, list[int]], *, for_s: int) -> Path:
    """The rules, with every `for` shortened, and a configuration that scrapes these ports, by job."""
    rules = folder / "rules"
    shutil.copytree(RULES, rules)
    for file in rules.glob("*.yml"):
        file.write_text(re.sub(r"^( +for: ).+$", rf"\g<1>{for_s}s", file.read_text(), flags=re.MULTILINE))
    jobs: list[dict[str, Any]] = []
    for job, ports in targets.items():
        # Pods have names of their own; on one machine a port is one.
        pods = [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "bench", "pod": f"{job}-{at}"}}
                for at, port in enumerate(ports)]  # fmt: skip
        jobs.append({"job_name": job, "static_configs": pods})
    every = f"{INTERVAL_S}s"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": jobs,
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    port: int

    def ask(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """What it answers now, or for a moment. Raises `urllib.error.HTTPError` for a query that it cannot read."""
        return self._get("query", query=expr, time=at or time.time())["result"]

    def ask_range(self, expr: str, begin: float, end: float) -> list[dict[str, Any]]:
        return self._get("query_range", query=expr, start=begin, end=end, step=5)["result"]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def health(self) -> dict[str, int]:
        """State of its targets → how many are in it."""
        states = [target["health"] for target in self._get("targets", state="active")["activeTargets"]]
        return {state: states.count(state) for state in sorted(set(states))}

    def failed_rules(self) -> list[str]:
        """Rules that could not be evaluated."""
        groups = self._get("rules")["groups"]
        return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]

    def _get(self, what: str, **parameters: Any) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]
