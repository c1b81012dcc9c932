"""Dashboards: whole, made by their source, and every query asks for metrics that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring_files import (
    FOREIGN,
    GRAFANA,
    ROOT,
    RUNBOOKS,
    TARGET_LABELS,
    Asked,
    asked_by_dashboards,
    asked_by_rules,
    dashboards,
    exported,
    plain,
    promtool,
    recorded,
)

BOARDS = dashboards()
UNITS = {"short", "s", "ops", "reqps", "percentunit", "bytes", "currencyUSD", "count:tokens/s"}

LINK = {"type", "title", "tags", "asDropdown", "keepTime", "includeVars", "icon", "targetBlank", "tooltip", "url"}
OPTIONS = {
    "timeseries": {"legend", "tooltip"},
    "stat": {"orientation", "reduceOptions", "colorMode", "graphMode", "textMode", "justifyMode", "wideLayout",
             "showPercentChange", "percentChangeColorMode"},
    "bargauge": {"orientation", "reduceOptions", "displayMode", "valueMode", "namePlacement", "showUnfilled", "sizing",
                 "minVizWidth", "minVizHeight", "maxVizHeight", "legend"},
    "table": {"showHeader", "frameIndex"},
}  # fmt: skip
"""What Grafana's schema (`@grafana/schema`, 11.6 to 13.2) requires of the options of each kind of panel."""


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_files_are_what_their_source_writes() -> None:
    done = subprocess.run([sys.executable, GRAFANA / "build.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("asked", asked_by_dashboards(), ids=lambda asked: asked.where)
def test_a_query_asks_for_what_exists(asked: Asked) -> None:
    known = exported() | recorded() | FOREIGN

    assert asked.names
    assert asked.names <= known.keys()
    assert asked.labels <= {label for name in asked.names for label in known[name]} | TARGET_LABELS


def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    made = [{"record": f"q{at}", "expr": plain(asked.expr)} for at, asked in enumerate(asked_by_dashboards())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))

    checked = subprocess.run([promtool(), "check", "rules", file], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr


def test_there_are_the_four() -> None:
    assert {name: board["uid"] for name, board in BOARDS.items()} == {
        "overview.json": "waystation-overview",
        "run-engine.json": "waystation-engine",
        "cost.json": "waystation-cost",
        "providers.json": "waystation-providers",
    }


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule() -> None:
    asked = {name for one in (*asked_by_dashboards(), *asked_by_rules()) for name in one.names}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("waystation_")}
    assert {name for name in families if not any(one.startswith(name) for one in asked)} == set()


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    board = BOARDS[name]
    variables = {variable["name"] for variable in board["templating"]["list"]}

    assert {"datasource", "namespace", "pod", "runbooks"} <= variables
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in panels(board):
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
        used = set(re.findall(r"\$\{?(?!__)(\w+)", str([panel["targets"], panel["links"]])))
        assert used <= variables
        for link in panel["links"]:
            page = link["url"].removeprefix("${runbooks}/")
            assert not (ROOT / RUNBOOKS).is_dir() or (ROOT / RUNBOOKS / page).is_file()


@pytest.mark.parametrize("name", BOARDS)
def test_everything_has_the_members_that_grafanas_schema_requires(name: str) -> None:
    board = BOARDS[name]

    assert 36 <= board["schemaVersion"] <= 41  # 36: datasources are objects; 41 is what Grafana 11.6 and 12.1 write
    assert all(link.keys() == LINK for link in board["links"])
    for panel in panels(board):
        assert panel["options"].keys() == OPTIONS[panel["type"]], panel["title"]
        assert all(link.keys() == LINK for link in panel["links"])
        names = [target["refId"] for target in panel["targets"]]
        assert len(names) == len(set(names))
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert all(target["instant"] != target["range"] for target in panel["targets"])
        assert len(names) == 1 or all(target["legendFormat"] for target in panel["targets"])
    for variable in board["templating"]["list"]:
        assert variable["type"] != "query" or variable["query"]["query"] == variable["definition"]


@pytest.mark.parametrize("name", BOARDS)
def test_annotations_are_asked_for_as_old_and_new_grafanas_read_them(name: str) -> None:
    for annotation in BOARDS[name]["annotations"]["list"]:
        expected = {"refId": "Anno", "expr": annotation["expr"], "interval": annotation["step"]}
        assert annotation["target"] == expected


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_grafana_is_told_where_prometheus_and_the_dashboards_are() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/waystation.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])

    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert Path(home).name in BOARDS
