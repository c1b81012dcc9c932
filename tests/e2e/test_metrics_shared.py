"""What `waystation up` shows of all its processes at one address."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli_servers import Client, Command, Project, until

pytestmark = pytest.mark.timeout(400)  # several processes, each of which imports everything


def shown(url: str, name: str) -> float:
    """The sum of a metric's samples."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def _workers(url: str) -> Any:
    return httpx.get(f"{url}/metrics?format=json", timeout=60).json()["workers"]


def test_one_address_shows_what_all_processes_count(tmp_path: Path, database_uri: str) -> None:
    project = Project(tmp_path / "project")
    arguments = ("up", "--port", "0", "--workers", "2", "--n-jobs-per-worker", "3", "--postgres-uri", database_uri)
    with Command.running(*arguments, cwd=project.folder) as up:
        url = up.url
        client = Client(url)
        until(lambda: shown(url, "waystation_worker_slots") == 6, "both workers are up")
        for _ in range(3):
            client.run({})
        until(lambda: shown(url, "agent_requests_total") == 3, "the workers' runs are counted")
        assert shown(url, "waystation_runs_finished_total") == 3
        assert shown(url, "agent_task_duration_seconds_count") == 3
        assert shown(url, "waystation_run_supersteps_sum") == 9
        assert shown(url, "waystation_run_first_event_seconds_count") == 3
        assert shown(url, "waystation_event_append_seconds_count") >= 3
        assert shown(url, "waystation_http_requests_total") >= 3
        assert shown(url, "waystation_pool_max_connections") > 0
        free = {"max": 6, "active": 0, "available": 6}
        until(lambda: _workers(url) == free, "every slot is free again")

        os.kill(up.child("worker "), signal.SIGKILL)
        up.until_says(r"worker-\d was ended by SIGKILL")
        # What it counted stays; its slots go, and come back with its successor.
        until(lambda: shown(url, "waystation_worker_slots") == 6, "its successor is up")
        assert shown(url, "agent_requests_total") == 3
