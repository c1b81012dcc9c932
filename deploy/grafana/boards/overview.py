"""Is it well, and what do clients feel."""

from __future__ import annotations

from panels import Board, Panel, Row
from queries import BY, largest, quantiles, rate, share, total

NOW = Row(
    title="Now",
    panels=[
        Panel(title="Processes that answer", kind="stat", width=3, height=4, below=(1, 2), runbook="worker-fleet",
              queries=[('sum(up{job=~"waystation.*", namespace=~"$namespace"})', "")],
              about="API processes and workers that Prometheus reaches."),
        Panel(title="Runs", kind="stat", unit="ops", width=3, height=4,
              queries=[(rate("waystation_runs_finished_total"), "")], about="Runs that ended, a second."),
        Panel(title="Failed runs", kind="stat", unit="percentunit", width=3, height=4, above=(0.05, 0.1),
              runbook="provider-outage",
              queries=[(share("waystation_runs_finished_total", 'outcome=~"error|timeout"'), "")],
              about="Part of the runs that ended in error or timeout."),
        Panel(title="Waiting runs", kind="stat", width=3, height=4, above=(1000, 8000), runbook="stuck-queue",
              queries=[(largest("waystation_queue_pending_runs"), "")], about="Pending runs of all processes."),
        Panel(title="Oldest waiting run", kind="stat", unit="s", width=3, height=4, above=(60, 300),
              runbook="stuck-queue", queries=[(largest("waystation_queue_oldest_pending_seconds"), "")],
              about="How long the oldest due run has waited."),
        Panel(title="Slots taken", kind="stat", unit="percentunit", width=3, height=4, above=(0.8, 0.95), most=1,
              runbook="worker-fleet",
              queries=[(f"{total('waystation_worker_active_runs')} / ({total('waystation_worker_slots')} > 0)", "")],
              about="Executing runs over what the workers can execute at a time."),
        Panel(title="Requests that failed", kind="stat", unit="percentunit", width=3, height=4, above=(0.001, 0.01),
              runbook="bad-deploy",
              queries=[(share("waystation_http_requests_total", 'status=~"5..", status!="503"'), "")],
              about="Part of the requests that ended in a 5xx other than 503."),
        Panel(title="Level", kind="stat", width=3, height=4, above=(1, 2), runbook="provider-outage",
              queries=[(largest("waystation_guard_level"), "")],
              about="What is offered: 0 is full, 1 reduced, 2 minimal, 3 maintenance."),
    ],
)  # fmt: skip

OVERVIEW = Board(
    uid="waystation-overview",
    title="Waystation / Overview",
    about="Is it well, and what do clients feel.",
    rows=[
        NOW,
        Row(title="Runs", panels=[
            Panel(title="Runs by outcome", unit="ops", stacked=True, runbook="provider-outage",
                  queries=[(rate("waystation_runs_finished_total", "outcome"), "{{outcome}}")],
                  about="Runs that ended, a second, by outcome."),
            Panel(title="Waiting for a worker", unit="s", above=(5, 30), runbook="worker-fleet",
                  queries=quantiles("waystation_run_wait_seconds"),
                  about="From when a run was due to its first claim."),
            Panel(title="Duration of runs", unit="s", queries=quantiles("waystation_run_duration_seconds"),
                  about="From the claim to the end, all graphs."),
            Panel(title="Time to the first event", unit="s", queries=quantiles("waystation_run_first_event_seconds"),
                  about="From the claim of a run to the first event of its graph."),
            Panel(title="Queue", queries=[
                (largest("waystation_queue_pending_runs"), "waiting"),
                (largest("waystation_queue_running_runs"), "executing"),
                (total("waystation_worker_slots"), "slots"),
            ], about="Runs that wait and execute, and the slots for them.", runbook="stuck-queue"),
            Panel(title="Dollars an hour", unit="currencyUSD", runbook="cost-spike",
                  queries=[(f"{rate('waystation_guard_spent_dollars_total')} * 3600", "spent"),
                           (f"{rate('waystation_guard_saved_dollars_total')} * 3600", "saved by caches")],
                  about="What model calls come to that guards watch."),
        ]),
        Row(title="API", panels=[
            Panel(title="Requests by status", unit="reqps", stacked=True,
                  queries=[(rate("waystation_http_requests_total", "status"), "{{status}}")],
                  about="Requests answered, a second."),
            Panel(title="Requests by route", unit="reqps",
                  queries=[(f"topk(10, {rate('waystation_http_requests_total', 'method, route')})",
                            "{{method}} {{route}}")],
                  about="The ten busiest."),
            Panel(title="Refusals", unit="reqps", runbook="stuck-queue",
                  queries=[(rate("waystation_http_limited_total", "limit"), "limit {{limit}}"),
                           (rate("waystation_http_requests_total", "status", ', status=~"429|503"'), "{{status}}")],
                  about="By limits (429), and because the queue or a process is full or Postgres away (503)."),
            Panel(title="Open streams", above=(5000, 8000), runbook="single-pod",
                  queries=[(total("waystation_streams_open", "pod"), "{{pod}}")],
                  about="Streams and waits that clients hold open, by process."),
            Panel(title="Firing alerts", kind="table", width=16,
                  queries=[('ALERTS{alertname=~"Waystation.*", alertstate="firing", severity!="info"}', "")],
                  about="Alerts of Waystation that fire now."),
        ]),
        Row(title="What it stands on", panels=[
            Panel(title="Postgres and Redis answer", below=(0.5, 1), most=1, runbook="postgres",
                  queries=[('min(pg_up{namespace=~"$namespace"})', "Postgres"),
                           ('min(redis_up{namespace=~"$namespace"})', "Redis")],
                  about="As their exporters see it; empty without exporters."),
            Panel(title="Lag of event loops", unit="s", above=(0.1, 0.5), runbook="single-pod",
                  queries=[(largest("waystation_event_loop_lag_seconds", "pod, loop"), "{{pod}} {{loop}}")],
                  about="`graphs`: a node blocks. `api`: too little CPU."),
            Panel(title="Memory", unit="bytes", runbook="single-pod", queries=[
                (f'max by (pod) (process_resident_memory_bytes{{job=~"waystation.*", {BY}}})', "{{pod}}")],
                about="Resident memory of each process."),
        ]),
    ],
)  # fmt: skip
