"""What the analysis of a canary asks Prometheus gets an answer about the new pods, by the labels that scrapes give."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from k8s_manifests import needs_kubectl, one, rendered
from monitoring_files import promtool
from waystation.telemetry import metrics

pytestmark = needs_kubectl

OLD, NEW = "waystation-api-5d4f-x1", "waystation-api-7c9b-y1"
"""Pods of a Rollout: its name, the version's hash, the pod's own."""


def series(name: str, pod: str, **labels: str) -> str:
    given = {"namespace": "waystation", "pod": pod, "job": "waystation-api", **labels}
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in given.items()) + "}"


def requests(pod: str, status: str) -> str:
    assert set(cast(Any, metrics.HTTP_REQUESTS)._labelnames) == {"method", "route", "status"}
    return series("waystation_http_requests_total", pod, method="GET", route="/info", status=status)


def lag(pod: str, loop: str) -> str:
    return series("waystation_event_loop_lag_seconds", pod, loop=loop)


def answered(tmp_path: Path, metric: str, given: Mapping[str, str], expected: float | None) -> None:
    """Assert what the analysis' metric of that name is after ten minutes of these series; None: no answer at all."""
    template = one(rendered("rollouts"), "AnalysisTemplate", "waystation-api")
    (asked,) = [m for m in template["spec"]["metrics"] if m["name"] == metric]
    arguments = {"namespace": "waystation", "canary": NEW.split("-")[2]}
    query = re.sub(r"{{args\.(\w+)}}", lambda found: arguments[found[1]], asked["provider"]["prometheus"]["query"])
    test: dict[str, Any] = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "10m",
                "exp_samples": [] if expected is None else [{"labels": "{}", "value": expected}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run(
        [promtool(), "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "share"),
    [
        pytest.param({requests(NEW, "200"): "0+8x60", requests(NEW, "500"): "0+2x60"}, 0.2, id="errors of the new"),
        pytest.param({requests(NEW, "200"): "0+8x60", requests(OLD, "500"): "0+2x60"}, None, id="errors of the old"),
        pytest.param({requests(NEW, "200"): "0+8x60", requests(NEW, "503"): "0+2x60"}, None, id="a full queue"),
        pytest.param({}, None, id="silence"),
    ],
)
def test_errors_are_the_share_of_what_the_new_pods_answered(
    tmp_path: Path, given: Mapping[str, str], share: float | None
) -> None:
    answered(tmp_path, "errors", given, share)


def test_lag_is_that_of_the_loop_that_answers(tmp_path: Path) -> None:
    given = {lag(NEW, "api"): "0.125x60", lag(NEW, "graphs"): "5x60", lag(OLD, "api"): "9x60"}
    answered(tmp_path, "loop-lag", given, 0.125)


def test_the_loops_name_is_the_one_that_the_api_gives_it() -> None:
    source = (Path(__file__).parents[2] / "server/waystation/app.py").read_text()
    assert 'watch_loop_lag("api"' in source
