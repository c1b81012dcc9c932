-- Threads, apart from what runs do to them (runs.sql). JSON comes as the client gets it. A thread with hidden_at is gone for
-- clients. `visible` is null, or what a caller's filter asks of the metadata: other threads do not exist for that caller.

-- name: create_thread
-- Makes a thread; no row: the id is taken.
insert into thread (
    tenant_id, thread_id, metadata, ttl_strategy, ttl_minutes, expires_at, created_at, updated_at, state_updated_at
)
values (
    %(tenant_id)s, %(thread_id)s, %(metadata)s::jsonb, %(ttl_strategy)s, %(ttl_minutes)s,
    now() + make_interval(secs => %(ttl_minutes)s::double precision * 60),
    statement_timestamp(), statement_timestamp(), statement_timestamp()
)
on conflict do nothing
returning waystation_thread(thread)::text;

-- name: get_thread
-- One thread; with `fields` only those members.
select case
    when %(fields)s::text[] is null then waystation_thread(t)
    else waystation_thread_parts(t, %(fields)s::text[], null)
end::text
from thread t
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and (%(visible)s::jsonb is null or t.metadata @> %(visible)s::jsonb);

-- name: thread_graph
-- What reading a thread's state needs: its graph and the configurable part of its last config.
select t.metadata ->> 'graph_id', t.config -> 'configurable'
from thread t
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and (%(visible)s::jsonb is null or t.metadata @> %(visible)s::jsonb);

-- name: lock_for_state
-- The thread's row for a state update, held to the end of the transaction: no run can be created meanwhile.
select t.active_runs, t.metadata ->> 'graph_id', t.config -> 'configurable'
from thread t
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and (%(visible)s::jsonb is null or t.metadata @> %(visible)s::jsonb)
for no key update;

-- name: save_face
-- The new face of a thread after a state update, and word of it to those who follow the thread. No row: a run is active, or the thread is gone.
update thread
set status = %(resting_status)s,
    resting_status = %(resting_status)s,
    "values" = %(values)s::jsonb,
    interrupts = %(interrupts)s::jsonb,
    error = null,
    state_updates = state_updates + 1,
    expires_at = now() + make_interval(secs => ttl_minutes * 60),
    updated_at = clock_timestamp(),
    state_updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null and active_runs = 0
returning waystation_thread(thread)::text, pg_notify('ws_event', tenant_id || '/' || thread_id || '/' || thread_id)::text;

-- name: patch_metadata
-- Merges metadata, member by member.
update thread
set metadata = metadata || %(metadata)s::jsonb,
    updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
  and (%(visible)s::jsonb is null or metadata @> %(visible)s::jsonb)
returning waystation_thread(thread)::text;

-- name: patch_metadata_and_ttl
-- Merges metadata and sets a new TTL, which counts from now.
update thread
set metadata = metadata || %(metadata)s::jsonb,
    ttl_strategy = %(ttl_strategy)s,
    ttl_minutes = %(ttl_minutes)s,
    expires_at = now() + make_interval(secs => %(ttl_minutes)s::double precision * 60),
    updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
  and (%(visible)s::jsonb is null or metadata @> %(visible)s::jsonb)
returning waystation_thread(thread)::text;

-- name: copy_thread
-- A thread with the metadata, the TTL and the face of another, at rest. No row: the other is not there.
insert into thread (
    tenant_id, thread_id, status, resting_status, metadata, "values", interrupts, error,
    ttl_strategy, ttl_minutes, expires_at
)
select s.tenant_id, %(copy_id)s, face.status, face.status, s.metadata || %(metadata)s::jsonb, s."values", s.interrupts, s.error,
       s.ttl_strategy, s.ttl_minutes, now() + make_interval(secs => s.ttl_minutes * 60)
from thread s
cross join lateral (select case when s.active_runs = 0 then s.status else s.resting_status end) as face (status)
where s.tenant_id = %(tenant_id)s and s.thread_id = %(thread_id)s and s.hidden_at is null
  and (%(visible)s::jsonb is null or s.metadata @> %(visible)s::jsonb)
returning waystation_thread_parts(
    thread,
    array['thread_id', 'created_at', 'updated_at', 'state_updated_at', 'metadata', 'status', 'config'],
    null)::text;

-- name: search_newest
-- A page of threads, newest first: the order that the index has.
with page as (
    select p.thread_id, row_number() over (order by p.created_at desc, p.thread_id desc) as place
    from thread p
    where p.tenant_id = %(tenant_id)s and p.hidden_at is null
      and (%(visible)s::jsonb is null or p.metadata @> %(visible)s::jsonb)
      and (%(ids)s::uuid[] is null or p.thread_id = any(%(ids)s::uuid[]))
      and (%(metadata)s::jsonb is null or p.metadata @> %(metadata)s::jsonb)
      and (%(values)s::jsonb is null or p."values" @> %(values)s::jsonb)
      and (%(status)s::text is null or p.status = %(status)s)
    order by p.created_at desc, p.thread_id desc
    limit %(limit)s offset %(offset)s
)
select case
    when %(fields)s::text[] is null then waystation_thread(t)
    else waystation_thread_parts(t, %(fields)s::text[], %(extract)s::jsonb)
end::text
from page
join thread t on t.tenant_id = %(tenant_id)s and t.thread_id = page.thread_id
order by page.place;

-- name: search_sorted
-- A page of threads in any other order; equal ones by id, so that pages do not overlap.
with matching as (
    select p.thread_id,
           case %(sort_by)s
               when 'created_at' then p.created_at
               when 'updated_at' then p.updated_at
               when 'state_updated_at' then p.state_updated_at
           end as by_time,
           case when %(sort_by)s = 'status' then p.status end as by_status,
           %(sort_order)s = 'asc' as ascending
    from thread p
    where p.tenant_id = %(tenant_id)s and p.hidden_at is null
      and (%(visible)s::jsonb is null or p.metadata @> %(visible)s::jsonb)
      and (%(ids)s::uuid[] is null or p.thread_id = any(%(ids)s::uuid[]))
      and (%(metadata)s::jsonb is null or p.metadata @> %(metadata)s::jsonb)
      and (%(values)s::jsonb is null or p."values" @> %(values)s::jsonb)
      and (%(status)s::text is null or p.status = %(status)s)
), page as (
    select thread_id, row_number() over in_order as place
    from matching
    window in_order as (
        order by
            case when ascending then by_time end,
            case when not ascending then by_time end desc,
            case when ascending then by_status end,
            case when not ascending then by_status end desc,
            case when ascending then thread_id end,
            case when not ascending then thread_id end desc
    )
    order by place
    limit %(limit)s offset %(offset)s
)
select case
    when %(fields)s::text[] is null then waystation_thread(t)
    else waystation_thread_parts(t, %(fields)s::text[], %(extract)s::jsonb)
end::text
from page
join thread t on t.tenant_id = %(tenant_id)s and t.thread_id = page.thread_id
order by page.place;

-- name: count_threads
-- How many threads match.
select count(*)
from thread p
where p.tenant_id = %(tenant_id)s and p.hidden_at is null
  and (%(visible)s::jsonb is null or p.metadata @> %(visible)s::jsonb)
  and (%(metadata)s::jsonb is null or p.metadata @> %(metadata)s::jsonb)
  and (%(values)s::jsonb is null or p."values" @> %(values)s::jsonb)
  and (%(status)s::text is null or p.status = %(status)s);

-- name: lock_for_deletion
-- Threads about to be deleted, in the order in which everyone locks them.
select thread_id::text
from thread
where tenant_id = %(tenant_id)s and thread_id = any(%(thread_ids)s::uuid[]) and hidden_at is null
  and (%(visible)s::jsonb is null or metadata @> %(visible)s::jsonb)
order by thread_id
for update;

-- name: runs_with_readers
-- The runs of locked threads that are active, which the statement tells their workers to stop, or that ended so lately
-- that their events may still be kept somewhere.
select thread_id::text, run_id::text, status in ('pending', 'running'),
       case when status = 'running' then
           pg_notify('ws_cancel', json_build_object('tenant_id', tenant_id, 'thread_id', thread_id,
               'run_id', run_id, 'action', 'interrupt', 'reason', 'thread deleted')::text)::text end
from run
where tenant_id = %(tenant_id)s and thread_id = any(%(thread_ids)s::uuid[])
  and (ended_at is null or ended_at > now() - interval '1 hour');

-- name: delete_threads
-- Deletes locked threads; their runs go with them, which fences whatever still executes one of them.
delete from thread
where tenant_id = %(tenant_id)s and thread_id = any(%(thread_ids)s::uuid[]);

-- name: delete_traces
-- What deleted threads leave in tables that do not refer to them; LangGraph's name them with their tenant. After `delete_threads`: that waits for writes under way.
with heads as (
    delete from checkpoints where thread_id = any(%(checkpoint_threads)s::text[])
), blobs as (
    delete from checkpoint_blobs where thread_id = any(%(checkpoint_threads)s::text[])
), writes as (
    delete from checkpoint_writes where thread_id = any(%(checkpoint_threads)s::text[])
)
delete from event_chunk
where tenant_id = %(tenant_id)s and thread_id = any(%(thread_ids)s::uuid[]);

-- name: idle_among
-- Which of these threads exist and have no active run.
select thread_id::text
from thread
where tenant_id = %(tenant_id)s and thread_id = any(%(thread_ids)s::uuid[]) and hidden_at is null and active_runs = 0
  and (%(visible)s::jsonb is null or metadata @> %(visible)s::jsonb);

-- name: lock_expired
-- Idle threads whose time is over and whose strategy is to go; those that somebody holds wait for the next sweep.
select tenant_id, thread_id::text
from thread
where expires_at < now() and ttl_strategy = 'delete' and active_runs = 0
order by expires_at
limit %(limit)s
for update skip locked;

-- name: lock_hidden
-- Threads of stateless runs that ended a while ago: late readers of their streams have had their minute.
select tenant_id, thread_id::text
from thread
where hidden_at < now() - make_interval(secs => %(older_than_s)s)
order by hidden_at
limit %(limit)s
for update skip locked;

-- name: expired_keeping_latest
-- Idle threads whose time is over and whose strategy is to keep the latest checkpoint.
select tenant_id, thread_id::text
from thread
where expires_at < now() and ttl_strategy = 'keep_latest' and active_runs = 0
order by expires_at
limit %(limit)s;

-- name: mark_trimmed
-- The older checkpoints of these threads are gone; the next change of their state starts their clock again.
update thread
set expires_at = null
where tenant_id = %(tenant_id)s and thread_id = any(%(thread_ids)s::uuid[]) and expires_at < now();
