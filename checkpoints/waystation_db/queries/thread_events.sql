-- A thread's events over all of its runs: which runs took which numbers. A run's own events are in the event log.

-- name: runs_with_events
-- The runs of a thread that took numbers after `after`, in the order of their numbers: those that go on, and those that
-- ended less than `ttl_s` ago. A run that did not begin has no attempt and one number.
select r.run_id::text, r.graph_id, r.status, r.attempt, r.epoch_ms, r.resumable, r.event_base, r.event_last,
       r.event_asked, r.error, (extract(epoch from coalesce(r.ended_at, now())) * 1000)::bigint, r.native
from thread t
join run r on r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and t.metadata @> %(visible)s::jsonb
  and r.event_base is not null
  and (r.event_last is null or r.event_last > %(after)s)
  and (r.ended_at is null or r.ended_at > now() - make_interval(secs => %(ttl_s)s))
union all
select c.run_id::text, c.graph_id, 'interrupted', c.attempt, c.epoch_ms, c.resumable, c.event_base, c.event_last,
       null::jsonb, null::jsonb, (extract(epoch from c.ended_at) * 1000)::bigint, c.native
from thread t
join run_trace c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and t.metadata @> %(visible)s::jsonb
  and c.event_last > %(after)s
  and c.ended_at > now() - make_interval(secs => %(ttl_s)s)
order by 7, 1
limit %(limit)s;

-- name: run_with_events
-- One run as `runs_with_events` has it, whatever became of its thread.
select r.run_id::text, r.graph_id, r.status, r.attempt, r.epoch_ms, r.resumable, r.event_base, r.event_last,
       r.event_asked, r.error, (extract(epoch from coalesce(r.ended_at, now())) * 1000)::bigint, r.native
from run r
where r.tenant_id = %(tenant_id)s and r.thread_id = %(thread_id)s and r.run_id = %(run_id)s and r.event_base is not null
union all
select c.run_id::text, c.graph_id, 'interrupted', c.attempt, c.epoch_ms, c.resumable, c.event_base, c.event_last,
       null::jsonb, null::jsonb, (extract(epoch from c.ended_at) * 1000)::bigint, c.native
from run_trace c
where c.tenant_id = %(tenant_id)s and c.thread_id = %(thread_id)s and c.run_id = %(run_id)s and c.event_base is not null;

-- name: thread_place
-- Where a thread's numbers stand: the last one that is settled, and how often its state was changed by hand.
select t.event_seq, t.state_updates
from thread t
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and t.metadata @> %(visible)s::jsonb;

-- name: executing_run
-- The run that executes on a thread.
select run_id::text
from run
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and status = 'running';

-- name: newest_run
-- The thread's newest run that took numbers, or the one of an id.
select r.run_id::text
from thread t
join run r on r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and t.metadata @> %(visible)s::jsonb
  and r.event_base is not null
  and (%(run_id)s::uuid is null or r.run_id = %(run_id)s::uuid)
order by r.event_base desc
limit 1;

-- name: threads_moved
-- The places of those threads on which a run executes, or that moved on from where their reader stands.
select w.place::int
from unnest(%(tenant_ids)s::text[], %(thread_ids)s::uuid[], %(seqs)s::bigint[], %(updates)s::bigint[])
    with ordinality as w (tenant_id, thread_id, seq, updates, place)
join thread t on t.tenant_id = w.tenant_id and t.thread_id = w.thread_id
where t.event_seq > w.seq
   or t.state_updates > w.updates
   or exists (
       select from run r
       where r.tenant_id = w.tenant_id and r.thread_id = w.thread_id and r.status = 'running'
   );

-- name: settle_owed
-- Numbers the last events of runs that ended before they began, unless a run executes: its numbers come first.
with t as (
    select tenant_id, thread_id, event_seq
    from thread
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and event_owed > 0
      and not exists (
          select from run r
          where r.tenant_id = %(tenant_id)s and r.thread_id = %(thread_id)s
            and r.event_base is not null and r.status in ('pending', 'running')
      )
    for no key update
), owed as (
    select c.tenant_id, c.thread_id, c.run_id, row_number() over (order by c.ended_at, c.run_id) as place
    from run_trace c
    join t on t.tenant_id = c.tenant_id and t.thread_id = c.thread_id
    where c.event_base is null
), numbered as (
    update run_trace
    set event_base = t.event_seq + o.place - 1, event_last = t.event_seq + o.place
    from owed o, t
    where run_trace.tenant_id = o.tenant_id and run_trace.thread_id = o.thread_id and run_trace.run_id = o.run_id
    returning run_trace.event_last
)
update thread
set event_seq = (select max(n.event_last) from numbered n), event_owed = 0
from t
where thread.tenant_id = t.tenant_id and thread.thread_id = t.thread_id and exists (select from numbered)
returning thread.event_seq;

-- name: delete_old_traces
-- Drops what nobody replays any more.
delete from run_trace
where ended_at < now() - make_interval(secs => %(ttl_s)s) and event_last is not null;
