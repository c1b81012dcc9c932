"""Makes Grafana's panels and dashboards: what is the same in all of them is written once, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOKS: Final = "docs/operations/runbooks"
"""A path of the repository, until somebody gives an address (a variable of the dashboards)."""

GREEN, YELLOW, RED = "green", "#EAB839", "red"
_COLUMNS: Final = 24


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of `kind` over queries, each with its legend. `above`: yellow from the first value, red from the next."""

    title: str
    queries: Sequence[tuple[str, str]]
    about: str
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    above: tuple[float, float] | None = None
    below: tuple[float, float] | None = None
    runbook: str | None = None
    stacked: bool = False
    most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard. `variables`: name → the query that gives its values."""

    uid: str
    title: str
    about: str
    rows: Sequence[Row]
    variables: dict[str, str] = field(default_factory=dict[str, str])


def dashboard(board: Board) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.about,
        "tags": ["waystation"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_alerts(), _starts()]},
        "links": [_link("Waystation", type="dashboards", tags=["waystation"], asDropdown=True, keepTime=True,
                        includeVars=True)],
        "templating": {"list": _variables(board)},
        "panels": list(_placed(board.rows)),
    }  # fmt: skip


def _variables(board: Board) -> list[dict[str, Any]]:
    chosen = {
        "namespace": "label_values(waystation_worker_slots, namespace)",
        "pod": 'label_values(waystation_worker_slots{namespace=~"$namespace"}, pod)',
        **board.variables,
    }
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
        *(_variable(name, query) for name, query in chosen.items()),
        {"name": "runbooks", "label": "Runbooks", "type": "textbox", "query": RUNBOOKS, "hide": 0,
         "description": "Address of the folder with the runbooks, for the links of panels.",
         "current": {"text": RUNBOOKS, "value": RUNBOOKS}},
    ]  # fmt: skip


def _variable(name: str, query: str) -> dict[str, Any]:
    # `.*` for all: it also fits series that have no such label, as on one machine without relabelling.
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _alerts() -> dict[str, Any]:
    expr = 'ALERTS{alertstate="firing", alertname=~"Waystation.*", severity!="info"}'
    return _annotation("Alerts", expr, title="{{alertname}}", color=RED, enable=True)


def _starts() -> dict[str, Any]:
    expr = 'changes(process_start_time_seconds{job=~"waystation.*"}[1m]) > 0'
    return _annotation("Starts", expr, title="{{pod}} started", color="blue", enable=False)


def _annotation(name: str, expr: str, *, title: str, color: str, enable: bool) -> dict[str, Any]:
    # Grafana 11 reads `expr` and `step`, 12 and later `target`.
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": enable,
        "iconColor": color,
        "titleFormat": title,
        "expr": expr,
        "step": "60s",
        "target": {"refId": "Anno", "expr": expr, "interval": "60s"},
    }


def _link(title: str, **what: Any) -> dict[str, Any]:
    """A link with every member that Grafana's schema asks for."""
    return {"type": "link", "title": title, "tags": [], "asDropdown": False, "keepTime": False, "includeVars": False,
            "icon": "external link", "targetBlank": False, "tooltip": "", "url": "", **what}  # fmt: skip


def _placed(rows: Sequence[Row]) -> Any:
    """Panels from left to right, row by row, each with its number."""
    number = y = 0
    for row in rows:
        number += 1
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}}  # fmt: skip
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            yield {"id": number, "gridPos": place, **_drawn(panel)}
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _drawn(panel: Panel) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": _description(panel),
        "datasource": DATASOURCE,
        "targets": [_target(panel, at, *query) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "links": [],
    }
    if panel.runbook is not None:
        title = f"Runbook: {panel.runbook.replace('-', ' ')}"
        drawn["links"] = [_link(title, url=f"${{runbooks}}/{panel.runbook}.md", targetBlank=True)]
    if panel.kind == "table":
        hidden = ("Time", "Value", "__name__", "job", "alertstate", "instance")
        excluded = {"excludeByName": dict.fromkeys(hidden, True)}
        drawn["transformations"] = [{"id": "organize", "options": excluded}]
    return drawn


def _description(panel: Panel) -> str:
    return f"{panel.about} Runbook: {RUNBOOKS}/{panel.runbook}.md" if panel.runbook else panel.about


def _target(panel: Panel, at: int, expr: str, legend: str) -> dict[str, Any]:
    now = panel.kind in ("stat", "bargauge", "table")
    return {
        "refId": chr(ord("A") + at),
        "datasource": DATASOURCE,
        "expr": expr,
        "legendFormat": legend,
        "instant": now,
        "range": not now,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": _thresholds(panel)}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.above or panel.below else "off"},
        }
    elif panel.kind != "table":
        defaults["color"] = {"mode": "thresholds"}
    return defaults


def _thresholds(panel: Panel) -> dict[str, Any]:
    if panel.above is not None:
        steps = zip((GREEN, YELLOW, RED), (None, *panel.above), strict=True)
    elif panel.below is not None:
        steps = zip((RED, YELLOW, GREEN), (None, *panel.below), strict=True)
    else:
        steps = zip((GREEN,), (None,), strict=True)
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}


def _options(panel: Panel) -> dict[str, Any]:
    calculated = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "timeseries":
            legend = {
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["lastNotNull", "max"],
                "showLegend": True,
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "bargauge":
            return {
                "orientation": "horizontal",
                "displayMode": "gradient",
                "reduceOptions": calculated,
                "valueMode": "color",
                "namePlacement": "auto",
                "showUnfilled": True,
                "sizing": "auto",
                "minVizWidth": 8,
                "minVizHeight": 16,
                "maxVizHeight": 300,
                "legend": {"displayMode": "list", "placement": "bottom", "calcs": [], "showLegend": False},
            }
        case "stat":
            return {
                "orientation": "auto",
                "colorMode": "value",
                "graphMode": "none",  # its queries ask for now: there is no line to draw
                "reduceOptions": calculated,
                "textMode": "auto",
                "justifyMode": "auto",
                "wideLayout": True,
                "showPercentChange": False,
                "percentChangeColorMode": "standard",
            }
        case _:
            return {"showHeader": True, "frameIndex": 0}
