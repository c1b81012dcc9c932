-- What operators want to know of the queue, over all tenants. Read at most once a second per process.

-- name: statistics
-- How many runs wait and execute, and how long the due ones have waited, in seconds (null when none is due).
-- "Unblocked" are those whose thread has nothing running.
with waiting as (
    select
        extract(epoch from clock_timestamp() - greatest(r.created_at, r.run_after))::float8 as waited_s,
        r.run_after <= clock_timestamp() as is_due,
        exists (
            select 1 from run b
            where b.tenant_id = r.tenant_id and b.thread_id = r.thread_id and b.status = 'running'
        ) as is_blocked
    from run r
    where r.status = 'pending'
)
select
    count(*),
    (select count(*) from run where status = 'running'),
    max(waited_s) filter (where is_due),
    percentile_cont(0.5) within group (order by waited_s) filter (where is_due),
    max(waited_s) filter (where is_due and not is_blocked)
from waiting;

-- name: by_priority
-- How many runs of each priority wait, of all tenants (tenant_id does not matter), and how long the oldest due one has.
select
    r.priority,
    count(*),
    max(extract(epoch from clock_timestamp() - greatest(r.created_at, r.run_after))::float8)
        filter (where r.run_after <= clock_timestamp())
from run r
where r.status = 'pending'
group by r.priority
