"""What a server counts of its runs."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli_servers import until
from live_server import LiveServer

pytestmark = pytest.mark.timeout(120)


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """The sample that is shown now; the server counts in this test's process, with those of other tests."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"no {name}")


def test_how_long_runs_waited_is_counted_once_a_run(own_server: Callable[..., LiveServer]) -> None:
    server = own_server(n_jobs_per_worker=4)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        counted, waited_s = (metric(client, f"waystation_run_wait_seconds_{part}") for part in ("count", "sum"))
        thread = client.post("/threads", json={}).json()["thread_id"]
        slow = {"assistant_id": "slow", "input": {"n": 5, "delay": 0.1}, "multitask_strategy": "enqueue"}
        for _ in range(2):
            client.post(f"/threads/{thread}/runs", json=slow).raise_for_status()
        until(lambda: client.get(f"/threads/{thread}").json()["status"] == "idle", "both runs have ended")

        assert metric(client, "waystation_run_wait_seconds_count") == counted + 2
        # The first one began at once, the second one after it.
        assert 0.4 < metric(client, "waystation_run_wait_seconds_sum") - waited_s < 30


def test_refused_writes_of_a_lost_run_are_counted(own_server: Callable[..., LiveServer], database_uri: str) -> None:
    server = own_server(n_jobs_per_worker=4)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        fenced = metric(client, "waystation_fenced_writes_total")
        thread = client.post("/threads", json={}).json()["thread_id"]
        slow = {"assistant_id": "slow", "input": {"n": 100, "delay": 0.1}}
        client.post(f"/threads/{thread}/runs", json=slow).raise_for_status()
        until(lambda: client.get(f"/threads/{thread}/state").json()["values"].get("ticks"), "it has begun")
        with psycopg.connect(database_uri, autocommit=True) as conn:
            conn.execute("update run set attempt = attempt + 1")  # as if another worker had claimed it
        until(lambda: metric(client, "waystation_fenced_writes_total") == fenced + 1, "the next step is refused")


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
def test_a_run_that_is_cancelled_before_it_begins_is_counted(
    own_server: Callable[..., LiveServer], action: str
) -> None:
    outcome = {"interrupt": "interrupted", "rollback": "rollback"}[action]
    server = own_server(n_jobs_per_worker=4)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        finished = "waystation_runs_finished_total"
        counted = metric(client, finished, outcome=outcome)
        thread = client.post("/threads", json={}).json()["thread_id"]
        later = {"assistant_id": "slow", "input": {"n": 1, "delay": 0.1}, "after_seconds": 600}
        run = client.post(f"/threads/{thread}/runs", json=later).json()["run_id"]
        client.post(f"/threads/{thread}/runs/{run}/cancel", params={"action": action}).raise_for_status()
        assert metric(client, finished, outcome=outcome) == counted + 1
