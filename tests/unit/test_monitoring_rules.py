"""Rules of Prometheus: they ask for metrics that exist, fire when they should, and lead to a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring_files import (
    FOREIGN,
    PROMETHEUS,
    ROOT,
    RUNBOOKS,
    TARGET_LABELS,
    Asked,
    asked_by_rules,
    exported,
    promtool,
    recorded,
    rules,
)

ALERTS = [rule for rule in rules() if "alert" in rule]
PAGES = {
    "single-pod",
    "worker-fleet",
    "postgres",
    "redis",
    "region",
    "provider-outage",
    "cost-spike",
    "stuck-queue",
    "bad-deploy",
}


@pytest.mark.parametrize("asked", asked_by_rules(), ids=lambda asked: asked.where)
def test_a_rule_asks_for_what_exists(asked: Asked) -> None:
    known = exported() | recorded() | FOREIGN

    assert asked.names or asked.where == "WaystationWatchdog"
    assert asked.names <= known.keys()
    assert asked.labels <= {label for name in asked.names for label in known[name]} | TARGET_LABELS


def test_names_of_metrics_are_found_in_queries() -> None:
    asked = Asked(
        "here", 'sum by (pod, le) (rate(a_total{b="c", d=~"e|f"}[5m] offset 1h)) / on (g) (h:i:j > 0) or k * 2e3'
    )

    assert asked.names == {"a_total", "h:i:j", "k"}
    assert asked.labels == {"pod", "le", "b", "d", "g"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    told = alert["annotations"]

    assert re.fullmatch(r"Waystation[A-Z][A-Za-z]+", alert["alert"])
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert told["summary"]
    assert told["description"].endswith(".")
    page = re.fullmatch(rf"{RUNBOOKS}/([a-z-]+)\.md(#[a-z0-9-]+)?", told["runbook_url"])
    assert page is not None
    assert page[1] in PAGES


def test_alerts_have_names_of_their_own_and_lead_to_every_runbook() -> None:
    names = [alert["alert"] for alert in ALERTS]
    pages = {re.split(r"[/.]", alert["annotations"]["runbook_url"])[-2] for alert in ALERTS}

    assert len(names) == len(set(names))
    assert pages == PAGES


def test_the_runbooks_are_there() -> None:
    folder = ROOT / RUNBOOKS
    if not folder.is_dir():
        pytest.skip(f"{RUNBOOKS} is not written yet")
    assert {page.stem for page in folder.glob("*.md")} >= PAGES
    for alert in ALERTS:
        path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
        assert not anchor or anchor in {_slug(heading) for heading in headings}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_page_lists_the_alerts() -> None:
    page = (ROOT / "docs/operations/monitoring.md").read_text()
    rows = re.findall(
        r"^\| `(Waystation\w+)` \| (\w+) \| .+ \| \[([a-z-]+)\]\(runbooks/\3\.md\) \|$", page, re.MULTILINE
    )
    told = [
        (alert["alert"], alert["labels"]["severity"], re.split(r"[/.]", alert["annotations"]["runbook_url"])[-2])
        for alert in ALERTS
    ]
    assert rows == told


def test_every_alert_fires_in_a_case_of_promtool() -> None:
    cases = [yaml.safe_load(path.read_text()) for path in (PROMETHEUS / "tests").glob("*.yml")]
    expected = {
        match
        for case in cases
        for test in case["tests"]
        for question in test["promql_expr_test"]
        for sample in question["exp_samples"]
        for match in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert expected | {"WaystationWatchdog"} == {alert["alert"] for alert in ALERTS}


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    checked = subprocess.run(
        [promtool(), "check", "config", "prometheus.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules())}" == str(sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", checked.stdout))))


def test_alerts_fire_when_they_should_and_not_before() -> None:
    cases = sorted(path.name for path in (PROMETHEUS / "tests").glob("*.yml"))
    run(promtool(), "test", "rules", *cases, cwd=PROMETHEUS / "tests")


def run(*command: str, cwd: Path) -> str:
    """What a command says that has to succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
