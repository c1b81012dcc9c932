"""Every metric of the server, in one place. Labels have few values: ids are never labels.

Gauges of the queue are read from Postgres when somebody asks (`api/system.py`); everything else is counted where it
happens. A process shows what it did itself; sums over processes are the monitoring's business.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter(
    "waystation_http_requests", "Requests answered, by method, route and status.", ["method", "route", "status"]
)
HTTP_LIMITED = Counter("waystation_http_limited", "Requests refused by a limit, by its name.", ["limit"])
HTTP_LIMITS_AWAY = Counter(
    "waystation_http_limits_away", "Requests that could not be counted because the shared state did not answer."
)
STREAMS_OPEN = Gauge("waystation_streams_open", "Streams and waits that clients hold open on this process.")

RUNS_FINISHED = Counter("waystation_runs_finished", "Runs that this process ended, by outcome.", ["outcome"])
RUN_SECONDS = Histogram(
    "waystation_run_duration_seconds",
    "From the claim of a run to its end, in this process.",
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
RUN_WAIT_SECONDS = Histogram(
    "waystation_run_wait_seconds",
    "From when a run was due to its first claim, by this process.",
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)

QUEUE_PENDING = Gauge("waystation_queue_pending_runs", "Runs that wait, on all processes.")
QUEUE_RUNNING = Gauge("waystation_queue_running_runs", "Runs that execute, on all processes.")
QUEUE_OLDEST_SECONDS = Gauge("waystation_queue_oldest_pending_seconds", "How long the oldest due run has waited.")
WORKER_SLOTS = Gauge("waystation_worker_slots", "Runs that this process can execute at a time.")
WORKER_ACTIVE = Gauge("waystation_worker_active_runs", "Runs that this process executes.")

LEASE_RENEWALS_LATE = Counter("waystation_lease_renewals_late", "Renewals that came later than a renewal interval.")
LEASE_RENEWAL_FAILURES = Counter(
    "waystation_lease_renewal_failures", "Renewals that did not reach Postgres; they are tried again at once."
)
LEASES_LOST = Counter("waystation_leases_lost", "Runs that this process lost because its lease ran out.")
RUNS_SWEPT = Counter("waystation_runs_swept", "Runs found with a past lease, by what became of them.", ["result"])
NODES_ABANDONED = Counter("waystation_nodes_abandoned", "Cancelled nodes that went on and were left behind the fence.")
FENCED_WRITES = Counter(
    "waystation_fenced_writes", "Attempts that were kept from writing because they no longer own their run."
)

CRON_FIRINGS = Counter(
    "waystation_cron_firings", "Ticks of crons that this process took, by what became of them.", ["result"]
)
WEBHOOK_TRIES = Counter(
    "waystation_webhook_tries", "Webhooks that this process sent, by what became of the try.", ["result"]
)

GUARD_REFUSALS = Counter(
    "waystation_guard_refusals", "Calls of models and tools that a policy refused, by the refusal's code.", ["code"]
)
GUARD_SPENT_DOLLARS = Counter(
    "waystation_guard_spent_dollars",
    "What model calls came to that guards watched, by model and tenant.",
    ["model", "tenant"],
)
GUARD_SAVED_DOLLARS = Counter("waystation_guard_saved_dollars", "What answers from caches would have cost.")
GUARD_CACHE_HITS = Counter("waystation_guard_cache_hits", "Answers given from caches, by the kind of cache.", ["layer"])
GUARD_ALERTS = Counter("waystation_guard_alerts", "Parts of budgets that were spent, by the limits' scope.", ["scope"])
GUARD_BREAKERS = Counter(
    "waystation_guard_breaker_changes", "Breakers that a call of this process opened or closed.", ["target", "event"]
)
GUARD_LEVEL = Gauge("waystation_guard_level", "What is offered: 0 is full, 1 reduced, 2 minimal, 3 maintenance.")
RUNS_KILLED = Counter("waystation_runs_killed", "Runs that this process stopped because of the kill switch.")

AUDIT_RECORDS = Counter("waystation_audit_records", "Records that this process wrote to the audit log.")
AUDIT_LOST = Counter("waystation_audit_lost", "Entries for the audit log that this process could not write.")

AGENT_ACTIVE_TASKS = Gauge(
    "agent_active_tasks", "Runs that this process executes, by the name that autoscalers' examples use."
)
AGENT_QUEUE_SIZE = Gauge("agent_queue_size", "Runs that wait, on all processes, by the name that examples use.")
AGENT_TASK_SECONDS = Histogram(
    "agent_task_duration_seconds",
    "From the claim of a run to its end, in this process, by the name that examples use.",
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
AGENT_REQUESTS = Counter(
    "agent_requests", "Runs that this process ended, by outcome, by the name that examples use.", ["status"]
)

LOOP_LAG_SECONDS = Gauge("waystation_event_loop_lag_seconds", "How late a timer of this loop last was.", ["loop"])

LAG_INTERVAL_S = 0.5


def runs_executing(count: int) -> None:
    """Tell how many runs this process executes now."""
    WORKER_ACTIVE.set(count)
    AGENT_ACTIVE_TASKS.set(count)


def run_executed(seconds: float) -> None:
    """Tell how long an attempt took, however it ended."""
    RUN_SECONDS.observe(seconds)
    AGENT_TASK_SECONDS.observe(seconds)


def run_ended(outcome: str) -> None:
    """Tell that the outcome of a run is written down."""
    RUNS_FINISHED.labels(outcome).inc()
    AGENT_REQUESTS.labels(outcome).inc()


@lru_cache(maxsize=4096)
def http_requests_of(method: str, route: str, status: int) -> Counter:
    """The counter of one method, route and status: looking it up by labels each time would cost more than counting."""
    return HTTP_REQUESTS.labels(method, route, str(status))


async def watch_loop_lag(name: str) -> None:
    """Measure, until cancelled, how late timers of this loop come."""
    gauge = LOOP_LAG_SECONDS.labels(name)
    now = asyncio.get_running_loop().time
    while True:
        due = now() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        gauge.set(max(0.0, now() - due))
