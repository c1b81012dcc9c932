"""Every process of a deployment is replaced behind a balancer while clients work: one retry is all they need."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from bench.rollouts.balancer import Balancer
from bench.rollouts.clients import Clients
from bench.rollouts.manifests import pod_rules

from chaos.fleet import PATIENT, Fleet, Node, fleet_of
from chaos.witness import say
from ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

CONFIG = str(Path(__file__).parents[2] / "bench" / "rollouts" / "project" / "langgraph.json")
QUICKER = 20


def _api(fleet: Fleet, name: str) -> Node:
    port = free_port()
    told = ("serve", "-c", CONFIG, "--host", "127.0.0.1", "--port", str(port))
    return fleet.add(Node(fleet, name, *told, port=port))


def _worker(fleet: Fleet, name: str) -> Node:
    port = free_port()
    told = ("worker", "-c", CONFIG, "--health-host", "127.0.0.1", "--health-port", str(port))
    return fleet.add(Node(fleet, name, *told, port=port))


async def _gone(node: Node, balancer: Balancer) -> None:
    """As the manifests have it: the Service forgets the pod while preStop goes on, then comes SIGTERM."""
    rules = pod_rules("api" if node.name.startswith("api") else "worker").quicker(QUICKER)
    balancer.remove(node.port)
    await asyncio.sleep(rules.pre_stop_s)
    node.terminate()
    assert await node.ended(within_s=max(60, rules.grace_s)) == 0, node.log()


async def test_replacing_every_process_fails_no_request_and_no_run(
    tmp_path: Path, database_uri: str, redis_url: str
) -> None:
    settings = {**PATIENT, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "9"}
    with fleet_of(tmp_path, database_uri, redis_url=redis_url, **settings) as fleet:
        async with Balancer.open() as balancer:
            old = [_api(fleet, "api-0"), _api(fleet, "api-1"), _worker(fleet, "worker-0"), _worker(fleet, "worker-1")]
            for node in old:
                await node.ready()
            for node in old[:2]:
                balancer.add(node.port)
            clients = Clients(balancer.url, long_s=3)
            working = asyncio.create_task(clients.work(of_each=1))
            for number, node in enumerate(old):
                is_api = number < 2
                new = await (_api(fleet, f"api-new-{number}") if is_api else _worker(fleet, f"worker-{number}")).ready()
                if is_api:
                    balancer.add(new.port)
                await _gone(node, balancer)
            clients.stop.set()
            await working
    counts = clients.counts
    say(f"{counts.requests}, retried {counts.retried}, taken up again {counts.went_on}")
    assert (counts.failed, counts.wrong, balancer.refused) == ([], [], 0)
    async with await psycopg.AsyncConnection.connect(database_uri) as conn:
        rows = await (await conn.execute("select status, sum(crashes)::int from run group by status")).fetchall()
    assert rows == [("success", 0)]


def test_a_pod_has_time_for_its_pre_stop_its_runs_and_its_end() -> None:
    for rules in (pod_rules("api"), pod_rules("worker")):
        runs_s = float(rules.environ["BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS"])
        assert rules.grace_s >= rules.pre_stop_s + runs_s + 10
    # A Service forgets a pod in a second or two, an external balancer by its own checks: two of theirs and some air.
    assert pod_rules("api").pre_stop_s >= 5
