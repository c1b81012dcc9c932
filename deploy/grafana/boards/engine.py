"""Where a run is held up: the queue, workers, leases, streams and pools."""

from __future__ import annotations

from typing import Final

from panels import Board, Panel, Row
from queries import BY, largest, quantiles, rate, total

_OWN: Final = f'{{job=~"waystation.*", {BY}}}'
_COMMITS: Final = 'pg_stat_database_xact_commit{namespace=~"$namespace"}'
_ROLLBACKS: Final = 'pg_stat_database_xact_rollback{namespace=~"$namespace"}'

ENGINE = Board(
    uid="waystation-engine",
    title="Waystation / Run engine",
    about="The queue, workers, leases, streams and pools: where a run is held up.",
    rows=[
        Row(title="Queue and slots", panels=[
            Panel(title="Waiting runs by priority", stacked=True, runbook="stuck-queue",
                  queries=[(largest("waystation_queue_priority_pending_runs", "priority"), "priority {{priority}}")],
                  about="Higher priorities start first."),
            Panel(title="Oldest waiting run by priority", unit="s", above=(60, 300), runbook="stuck-queue",
                  queries=[(largest("waystation_queue_priority_oldest_pending_seconds", "priority"),
                            "priority {{priority}}")],
                  about="How long the oldest due run of a priority has waited."),
            Panel(title="Executing runs by worker", stacked=True, runbook="worker-fleet",
                  queries=[(total("waystation_worker_active_runs", "pod"), "{{pod}}")],
                  about="Runs that each process executes."),
            Panel(title="Slots by worker", stacked=True, runbook="worker-fleet",
                  queries=[(total("waystation_worker_slots", "pod"), "{{pod}}")],
                  about="Runs that each process can execute at a time."),
            Panel(title="Attempts", unit="ops",
                  queries=[(rate("waystation_run_duration_seconds_count"), "attempts"),
                           (rate("waystation_run_wait_seconds_count"), "first claims"),
                           (rate("waystation_runs_finished_total"), "runs ended")],
                  about="More attempts than runs: runs are tried again, or handed over."),
            Panel(title="Supersteps of a run", queries=quantiles("waystation_run_supersteps"),
                  about="How many steps attempts take: agents that go round in circles."),
        ]),
        Row(title="Leases and the fence", panels=[
            Panel(title="Leases", unit="ops", runbook="single-pod",
                  queries=[(rate("waystation_lease_renewals_late_total", "pod"), "late {{pod}}"),
                           (rate("waystation_lease_renewal_failures_total", "pod"), "failed {{pod}}"),
                           (rate("waystation_leases_lost_total", "pod"), "lost {{pod}}")],
                  about="Renewals that came late or did not reach Postgres, and runs lost over it."),
            Panel(title="Swept runs", unit="ops", runbook="worker-fleet",
                  queries=[(rate("waystation_runs_swept_total", "result"), "{{result}}")],
                  about="Runs whose worker is gone: pending is tried again, error was tried too often."),
            Panel(title="Kept from writing, left behind", unit="ops", runbook="single-pod",
                  queries=[(rate("waystation_fenced_writes_total", "pod"), "fenced {{pod}}"),
                           (rate("waystation_nodes_abandoned_total", "pod"), "abandoned {{pod}}")],
                  about="Attempts that no longer own their run, and nodes that go on after they were cancelled."),
        ]),
        Row(title="Events and pools", panels=[
            Panel(title="Delay of events", unit="s", above=(0.25, 1), runbook="redis",
                  queries=quantiles("waystation_event_append_seconds"),
                  about="From when the first event of a batch was made until the event log had it."),
            Panel(title="Connections lent out", unit="percentunit", above=(0.8, 1), most=1, runbook="postgres",
                  queries=[(f"{total('waystation_pool_in_use_connections', 'pod, pool')} / "
                            f"{total('waystation_pool_max_connections', 'pod, pool')}", "{{pod}} {{pool}}")],
                  about="Part of each pool of Postgres connections that is in use."),
            Panel(title="Waiting for a connection", above=(1, 10), runbook="postgres",
                  queries=[(total("waystation_pool_waiting_callers", "pod, pool"), "{{pod}} {{pool}}")],
                  about="Callers that wait for a Postgres connection."),
            Panel(title="Postgres: connections by state", runbook="postgres",
                  queries=[('sum by (state) (pg_stat_activity_count{namespace=~"$namespace"})', "{{state}}"),
                           ('max(pg_settings_max_connections{namespace=~"$namespace"})', "limit")],
                  about="As the exporter of Postgres sees it."),
            Panel(title="Postgres: transactions", unit="ops", runbook="postgres",
                  queries=[(f"sum(rate({_COMMITS}[$__rate_interval]))", "commits"),
                           (f"sum(rate({_ROLLBACKS}[$__rate_interval]))", "rollbacks")],
                  about="As the exporter of Postgres sees it."),
            Panel(title="Redis: memory", unit="bytes", runbook="redis",
                  queries=[('max(redis_memory_used_bytes{namespace=~"$namespace"})', "used"),
                           ('max(redis_memory_max_bytes{namespace=~"$namespace"}) > 0', "limit")],
                  about="As the exporter of Redis sees it."),
        ]),
        Row(title="Processes", panels=[
            Panel(title="CPU", unit="percentunit", runbook="single-pod",
                  queries=[(f"sum by (pod) (rate(process_cpu_seconds_total{_OWN}[$__rate_interval]))", "{{pod}}")],
                  about="Cores that each process uses; one is the most that Python code can."),
            Panel(title="Lag of event loops", unit="s", above=(0.1, 0.5), runbook="single-pod",
                  queries=[(largest("waystation_event_loop_lag_seconds", "pod, loop"), "{{pod}} {{loop}}")],
                  about="How late timers come."),
            Panel(title="File descriptors", unit="percentunit", above=(0.6, 0.8), most=1, runbook="single-pod",
                  queries=[(f"max by (pod) (process_open_fds{_OWN} / process_max_fds)", "{{pod}}")],
                  about="Part of the limit that is open."),
            Panel(title="Age of processes", unit="s", runbook="bad-deploy",
                  queries=[(f"time() - max by (pod) (process_start_time_seconds{_OWN})", "{{pod}}")],
                  about="Drops to zero at a start."),
            Panel(title="Crons", unit="ops", queries=[(rate("waystation_cron_firings_total", "result"), "{{result}}")],
                  about="Ticks of crons by what became of them.", runbook="stuck-queue"),
            Panel(title="Webhooks", unit="ops",
                  queries=[(rate("waystation_webhook_tries_total", "result"), "{{result}}")],
                  about="Tries by what became of them; spent means given up.", runbook="stuck-queue"),
            Panel(title="Audit log", unit="ops", runbook="postgres",
                  queries=[(rate("waystation_audit_records_total"), "written"),
                            (rate("waystation_audit_lost_total"), "lost")],
                  about="Records that were written, and entries that were lost."),
        ]),
    ],
)  # fmt: skip
