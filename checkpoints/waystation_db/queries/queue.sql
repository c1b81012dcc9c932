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

-- name: unattended
-- What a living worker would have taken up in the last `grace_s` seconds, of all tenants (tenant_id does not matter): due
-- runs that nothing blocks and the longest wait of one in seconds, runs whose worker is gone, crons that are due. And how
-- many runs are being executed.
select
    count(*) filter (where w.waited_s > %(grace_s)s),
    max(w.waited_s),
    (select count(*) from run l
     where l.status = 'running' and l.lease_expires_at < clock_timestamp() - make_interval(secs => %(grace_s)s)),
    (select count(*) from cron c where c.due_at < clock_timestamp() - make_interval(secs => %(grace_s)s)),
    (select count(*) from run l where l.status = 'running' and l.lease_expires_at >= clock_timestamp())
from (
    select extract(epoch from clock_timestamp() - greatest(r.created_at, r.run_after))::float8 as waited_s
    from run r
    where r.status = 'pending' and r.run_after <= clock_timestamp()
      and not exists (
          select 1 from run b
          where b.tenant_id = r.tenant_id and b.thread_id = r.thread_id and b.status = 'running')
) w;
