"""The production overlay's containers as processes: its very arguments and variables, from an empty database to a run
and to the end by SIGTERM. Only ports and addresses are this machine's."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli_servers import Client, Command, Project, until
from k8s_manifests import container, needs_kubectl, one, ours, rendered, settings_of

pytestmark = [needs_kubectl, pytest.mark.timeout(400)]  # processes, each of which imports everything

OVERLAY = "overlays/production"


def arguments(template: Any) -> Sequence[str]:
    """What follows `waystation` in the container, with a free port for each."""
    spec = container(template)
    numbers = {str(port["containerPort"]) for port in spec.get("ports", ())}
    return ["0" if word in numbers else word for word in spec["args"][1:]]


def test_the_containers_processes_migrate_serve_execute_and_stop(
    tmp_path: Path, empty_database_uri: str, redis_url: str
) -> None:
    manifests = rendered(OVERLAY)
    project = Project(tmp_path / "project")
    templates = dict(ours(manifests))
    environ = {
        **settings_of(manifests),
        "DATABASE_URI": empty_database_uri,
        "REDIS_URI": redis_url,
        "HOME": str(tmp_path),
    }

    def start(name: str) -> Any:
        return Command.running(*arguments(templates[name]), cwd=project.folder, environ=environ)

    with start("waystation-migrate-pre") as job:
        assert job.ended() == 0, job.output
    with start("waystation-worker") as worker, start("waystation-api") as api:
        for name, command in (("waystation-worker", worker), ("waystation-api", api)):
            spec = container(templates[name])
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = spec[probe]["httpGet"]["path"]
                until(
                    lambda path=path, url=command.url: httpx.get(url + path, timeout=60).status_code == 200,
                    f"{name} {path}",
                )
        assert Client(api.url).run({"wait_at": 0})["done"] == [1, 2, 3]
        monitors = one(manifests, "ServiceMonitor", "waystation-worker")["spec"]["endpoints"]

        def scraped() -> str:
            return httpx.get(worker.url + monitors[0]["path"], timeout=60).text

        until(lambda: "\nagent_active_tasks 0.0" in scraped(), "the slot is free again")
        until(lambda: 'waystation_runs_finished_total{outcome="success"} 1.0' in scraped(), "the run is counted")
        for command in (api, worker):
            command.signal(signal.SIGTERM)
        assert (api.ended(), worker.ended()) == (0, 0)
    with start("waystation-migrate-post") as job:
        assert job.ended() == 0, job.output
