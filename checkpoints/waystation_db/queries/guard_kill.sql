-- The kill switch. Whoever is stopped is so in all processes: they hear of it, and look once a second besides.

-- name: add_kill
-- Stops a scope from now on.
insert into guard_kill (tenant_id, scope, owner, reason, made_by, until)
values (%(tenant_id)s, %(scope)s, %(owner)s, %(reason)s, %(made_by)s, clock_timestamp() + make_interval(secs => %(for_s)s::float8))
returning waystation_kill(guard_kill)::text, pg_notify('ws_kill', '')::text;

-- name: lift_kill
-- Lets a scope go on. No row: there is no such kill in force.
update guard_kill
set lifted_at = clock_timestamp(), lifted_by = %(by)s
where tenant_id = %(tenant_id)s and kill_id = %(kill_id)s and lifted_at is null
returning waystation_kill(guard_kill)::text, pg_notify('ws_kill', '')::text;

-- name: get_kill
-- One kill.
select waystation_kill(k)::text
from guard_kill k
where k.tenant_id = %(tenant_id)s and k.kill_id = %(kill_id)s;

-- name: list_kills
-- A page of a tenant's kills, the newest first; those of all tenants where they concern it.
select waystation_kill(k)::text
from guard_kill k
where (k.tenant_id = %(tenant_id)s or %(everybody)s and k.tenant_id = '*')
  and (not %(in_force)s or k.lifted_at is null and (k.until is null or k.until > clock_timestamp()))
order by k.created_at desc, k.kill_id desc
limit %(limit)s offset %(offset)s;

-- name: kills_in_force
-- Everything that is stopped now, for a process that asks for all tenants; with the assistants of a graph.
select k.tenant_id, k.kill_id::text, k.scope, k.owner, k.reason, extract(epoch from k.until - clock_timestamp())::float8,
       case when k.scope = 'graph' then array(
           select a.assistant_id::text
           from assistant a
           where a.graph_id = k.owner and (k.tenant_id = '*' or a.tenant_id = k.tenant_id)
       ) end
from guard_kill k
where k.lifted_at is null and (k.until is null or k.until > clock_timestamp())
order by k.created_at, k.kill_id;

-- name: owner_of_key
-- Whose an API key is.
select tenant_id
from api_key
where key_id = %(key_id)s;

-- name: wish_killed
-- Writes the wish to stop on running runs that are killed, in the order in which leases are renewed.
with doomed as (
    select tenant_id, thread_id, run_id, waystation_killed(run) as why
    from run
    where status = 'running' and cancel_action is null and waystation_killed(run) is not null
    order by run_id
    limit %(limit)s
    for no key update of run
)
update run
set cancel_action = 'interrupt', cancel_reason = %(prefix)s || d.why, updated_at = clock_timestamp()
from doomed d
where run.tenant_id = d.tenant_id and run.thread_id = d.thread_id and run.run_id = d.run_id
  and run.status = 'running' and run.cancel_action is null
returning run.tenant_id, run.thread_id::text, run.run_id::text, run.cancel_reason,
          pg_notify('ws_cancel', json_build_object('tenant_id', run.tenant_id, 'thread_id', run.thread_id,
              'run_id', run.run_id, 'action', run.cancel_action, 'reason', run.cancel_reason)::text)::text;

-- name: cancel_killed
-- Ends pending runs that are killed, of up to `limit` threads: as `cancel_pending` of runs.sql, for many threads. Threads
-- that somebody holds are left for the next time.
with doomed as (
    select distinct r.tenant_id, r.thread_id
    from run r
    where r.status = 'pending' and waystation_killed(r) is not null
    limit %(limit)s
), held as (
    select t.tenant_id, t.thread_id
    from thread t
    join doomed d on d.tenant_id = t.tenant_id and d.thread_id = t.thread_id
    order by t.tenant_id, t.thread_id
    for no key update of t skip locked
), r as (
    update run
    set status = 'interrupted',
        error = jsonb_build_object('error', 'Killed', 'message', %(prefix)s || waystation_killed(run)),
        cancel_reason = %(prefix)s || waystation_killed(run),
        event_last = waystation_beyond(run),
        ended_at = clock_timestamp(),
        updated_at = clock_timestamp()
    from held
    where run.tenant_id = held.tenant_id and run.thread_id = held.thread_id
      and run.status = 'pending' and waystation_killed(run) is not null
    returning run.tenant_id, run.thread_id, run.run_id, run.graph_id, run.attempt, run.epoch_ms, run.resumable, run.native,
              run.temporary, run.event_base, waystation_beyond(run) as beyond
), trace as (
    insert into run_trace (tenant_id, thread_id, run_id, graph_id, attempt, epoch_ms, resumable, native)
    select r.tenant_id, r.thread_id, r.run_id, r.graph_id, r.attempt, r.epoch_ms, r.resumable, r.native
    from r
    where r.event_base is null
), n as (
    select tenant_id, thread_id, count(*)::int as ended, bool_or(temporary) as temporary,
           count(*) filter (where event_base is null)::int as owed, max(beyond) as beyond
    from r
    group by tenant_id, thread_id
), t as (
    update thread
    set active_runs = thread.active_runs - n.ended,
        status = case when thread.active_runs > n.ended then 'busy' else thread.resting_status end,
        hidden_at = case when n.temporary then now() end,
        event_owed = thread.event_owed + n.owed,
        event_seq = greatest(thread.event_seq, n.beyond),
        updated_at = clock_timestamp()
    from n
    where thread.tenant_id = n.tenant_id and thread.thread_id = n.thread_id
    returning thread.thread_id
)
select tenant_id, thread_id::text, run_id::text from r;
