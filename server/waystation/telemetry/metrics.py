"""Every metric of the server, in one place. Labels have few values: ids are never labels.

Gauges of the queue, of budgets and of breakers are read from Postgres when somebody asks (`api/numbers.py`);
everything else is counted where it happens (`counting.py` for what is more than one line). A process shows what it did
itself. Where several share a folder (PROMETHEUS_MULTIPROC_DIR, as under `waystation up`), any of them shows all:
`multiprocess_mode` says what then becomes of a gauge.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter(
    "waystation_http_requests", "Requests answered, by method, route and status.", ["method", "route", "status"]
)
HTTP_LIMITED = Counter("waystation_http_limited", "Requests refused by a limit, by its name.", ["limit"])
HTTP_LIMITS_AWAY = Counter(
    "waystation_http_limits_away", "Requests that could not be counted because the shared state did not answer."
)
STREAMS_OPEN = Gauge(
    "waystation_streams_open",
    "Streams and waits that clients hold open on this process.",
    multiprocess_mode="livesum",
)

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

RUN_FIRST_EVENT_SECONDS = Histogram(
    "waystation_run_first_event_seconds",
    "From the claim of a run to the first event of its graph.",
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RUN_SUPERSTEPS = Histogram(
    "waystation_run_supersteps",
    "Supersteps of an attempt, as its checkpoints tell.",
    buckets=(1, 2, 3, 5, 8, 13, 25, 50, 100, 250),
)

QUEUE_PENDING = Gauge(
    "waystation_queue_pending_runs", "Runs that wait, on all processes.", multiprocess_mode="mostrecent"
)
QUEUE_RUNNING = Gauge(
    "waystation_queue_running_runs", "Runs that execute, on all processes.", multiprocess_mode="mostrecent"
)
QUEUE_OLDEST_SECONDS = Gauge(
    "waystation_queue_oldest_pending_seconds",
    "How long the oldest due run has waited.",
    multiprocess_mode="mostrecent",
)
QUEUE_PRIORITY_PENDING = Gauge(
    "waystation_queue_priority_pending_runs",
    "Runs that wait, by priority: higher ones start first.",
    ["priority"],
    multiprocess_mode="mostrecent",
)
QUEUE_PRIORITY_OLDEST_SECONDS = Gauge(
    "waystation_queue_priority_oldest_pending_seconds",
    "How long the oldest due run of a priority has waited.",
    ["priority"],
    multiprocess_mode="mostrecent",
)
WORKER_SLOTS = Gauge(
    "waystation_worker_slots", "Runs that this process can execute at a time.", multiprocess_mode="livesum"
)
WORKER_ACTIVE = Gauge("waystation_worker_active_runs", "Runs that this process executes.", multiprocess_mode="livesum")

MODEL_CALLS = Counter(
    "waystation_model_calls", "Calls of models that runs made, by model and what became of them.", ["model", "outcome"]
)
MODEL_CALL_SECONDS = Histogram(
    "waystation_model_call_duration_seconds",
    "How long calls of models took, by model.",
    ["model"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
)
MODEL_TOKENS = Counter(
    "waystation_model_tokens",
    "Tokens that models counted, by model and kind: input, output, and the part of the input that came from a cache.",
    ["model", "kind"],
)
TOOL_CALLS = Counter(
    "waystation_tool_calls", "Calls of tools that runs made, by tool and what became of them.", ["tool", "outcome"]
)
TOOL_CALL_SECONDS = Histogram(
    "waystation_tool_call_duration_seconds",
    "How long calls of tools took, by tool.",
    ["tool"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)

EVENT_APPEND_SECONDS = Histogram(
    "waystation_event_append_seconds",
    "From when the first event of a batch was made until the event log had it: how far readers are behind.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
POOL_MAX = Gauge(
    "waystation_pool_max_connections",
    "Postgres connections that a pool may hold.",
    ["pool"],
    multiprocess_mode="livesum",
)
POOL_IN_USE = Gauge(
    "waystation_pool_in_use_connections",
    "Postgres connections that are lent out or being made.",
    ["pool"],
    multiprocess_mode="livesum",
)
POOL_WAITING = Gauge(
    "waystation_pool_waiting_callers",
    "Callers that wait for a Postgres connection.",
    ["pool"],
    multiprocess_mode="livesum",
)

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
GUARD_BREAKER_OPEN = Gauge(
    "waystation_guard_breaker_open",
    "Breakers of the policy's targets, on all processes: 1 is open, 0 closed.",
    ["target"],
    multiprocess_mode="mostrecent",
)
GUARD_BUDGET_SPENT = Gauge(
    "waystation_guard_budget_spent",
    "What is spent in the present windows, over all owners of a scope, in the unit of the limit.",
    ["tenant", "scope", "unit", "window"],
    multiprocess_mode="mostrecent",
)
GUARD_BUDGET_HELD = Gauge(
    "waystation_guard_budget_held",
    "What open calls are expected to come to, likewise.",
    ["tenant", "scope", "unit", "window"],
    multiprocess_mode="mostrecent",
)
GUARD_BUDGET_USED_MOST = Gauge(
    "waystation_guard_budget_used_most_ratio",
    "The part of a limit that is spent or held by the owner who has used most of it: 1 is all.",
    ["tenant", "scope", "unit", "window"],
    multiprocess_mode="mostrecent",
)
GUARD_LEVEL = Gauge(
    "waystation_guard_level",
    "What is offered: 0 is full, 1 reduced, 2 minimal, 3 maintenance.",
    multiprocess_mode="livemax",
)
RUNS_KILLED = Counter("waystation_runs_killed", "Runs that this process stopped because of the kill switch.")

AUDIT_RECORDS = Counter("waystation_audit_records", "Records that this process wrote to the audit log.")
AUDIT_LOST = Counter("waystation_audit_lost", "Entries for the audit log that this process could not write.")

AGENT_ACTIVE_TASKS = Gauge(
    "agent_active_tasks",
    "Runs that this process executes, by the name that autoscalers' examples use.",
    multiprocess_mode="livesum",
)
AGENT_QUEUE_SIZE = Gauge(
    "agent_queue_size",
    "Runs that wait, on all processes, by the name that examples use.",
    multiprocess_mode="mostrecent",
)
AGENT_TASK_SECONDS = Histogram(
    "agent_task_duration_seconds",
    "From the claim of a run to its end, in this process, by the name that examples use.",
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
AGENT_REQUESTS = Counter(
    "agent_requests", "Runs that this process ended, by outcome, by the name that examples use.", ["status"]
)

LOOP_LAG_SECONDS = Gauge(
    "waystation_event_loop_lag_seconds",
    "How late a timer of this loop last was.",
    ["loop"],
    multiprocess_mode="livemax",
)


def _begin_at_zero() -> None:
    """Known values of labels are there from the start: no rate sees the first of a series that was not there before."""
    ends = ("success", "error", "timeout", "interrupted", "rollback")
    known = {
        RUNS_FINISHED: ends,
        AGENT_REQUESTS: ends,
        RUNS_SWEPT: ("pending", "error", "interrupted"),
        CRON_FIRINGS: ("fired", "skipped", "disabled"),
        WEBHOOK_TRIES: ("delivered", "failed", "spent"),
        GUARD_ALERTS: ("run", "thread", "assistant", "graph", "user", "key", "tenant"),
    }
    for metric, values in known.items():
        for value in values:
            metric.labels(value)


_begin_at_zero()
