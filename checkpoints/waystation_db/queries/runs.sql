-- Every statement that changes a run's status. A transition names the state (and the attempt) that it leaves; no row back
-- means that somebody else was first. Lock order everywhere: the thread's row, then rows of run by run_id.

-- name: create_on_idle_thread
-- Creates a run on a thread without active runs, claimed by this process or pending. No row: use the queued path, which
-- also says why (no such thread, no such assistant, thread busy).
with a as (
    select assistant_id, graph_id, config, context, metadata
    from assistant
    where tenant_id = %(tenant_id)s and assistant_id = %(assistant_id)s
      and (%(assistant_visible)s::jsonb is null or metadata @> %(assistant_visible)s::jsonb)
), t as (
    update thread
    set status = 'busy',
        active_runs = 1,
        resting_status = thread.status,
        metadata = thread.metadata || jsonb_build_object('graph_id', a.graph_id, 'assistant_id', a.assistant_id),
        config = a.config || %(config)s::jsonb
            || jsonb_build_object('configurable', coalesce(a.config -> 'configurable', '{}'::jsonb)),
        updated_at = clock_timestamp()
    from a
    where thread.tenant_id = %(tenant_id)s and thread.thread_id = %(thread_id)s
      and thread.active_runs = 0 and thread.hidden_at is null
      and (%(visible)s::jsonb is null or thread.metadata @> %(visible)s::jsonb)
    returning thread.tenant_id, thread.thread_id, thread.metadata, thread.event_seq
)
insert into run (
    tenant_id, thread_id, run_id, assistant_id, graph_id, status, attempt, priority, multitask_strategy, metadata, kwargs,
    assistant_config, assistant_context, resumable, native, temporary, webhook, caller, caller_key, claimed_by, epoch_ms,
    lease_expires_at, started_at, event_base
)
select t.tenant_id, t.thread_id, %(run_id)s, a.assistant_id, a.graph_id,
       case when %(claim)s then 'running' else 'pending' end,
       case when %(claim)s then 1 else 0 end,
       %(priority)s, %(multitask_strategy)s,
       a.metadata || t.metadata || %(metadata)s::jsonb,
       %(kwargs)s::json, a.config, a.context, %(resumable)s, %(native)s, %(temporary)s, %(webhook)s, %(caller)s, %(caller_key)s,
       case when %(claim)s then %(worker_id)s end,
       case when %(claim)s then (extract(epoch from clock_timestamp()) * 1000)::bigint else 0 end,
       case when %(claim)s then now() + make_interval(secs => %(lease_s)s) end,
       case when %(claim)s then now() end,
       case when %(claim)s then t.event_seq end
from t, a
returning run_id::text, thread_id::text, assistant_id::text, graph_id, status, attempt, epoch_ms, metadata,
          assistant_config, assistant_context, waystation_time(created_at), waystation_time(updated_at),
          %(claim)s and not waystation_has_state(tenant_id, thread_id), coalesce(event_base, 0),
          case when not %(claim)s and %(notify)s then pg_notify('ws_run', '')::text end;

-- name: create_with_thread
-- Creates a thread and its first run in one statement. No row: no such assistant, or the thread exists.
with a as (
    select assistant_id, graph_id, config, context, metadata
    from assistant
    where tenant_id = %(tenant_id)s and assistant_id = %(assistant_id)s
      and (%(assistant_visible)s::jsonb is null or metadata @> %(assistant_visible)s::jsonb)
), t as (
    insert into thread (
        tenant_id, thread_id, status, active_runs, metadata, config, priority, ttl_strategy, ttl_minutes, expires_at
    )
    select %(tenant_id)s, %(thread_id)s, 'busy', 1,
           %(thread_metadata)s::jsonb || jsonb_build_object('graph_id', a.graph_id, 'assistant_id', a.assistant_id),
           a.config || %(config)s::jsonb
               || jsonb_build_object('configurable', coalesce(a.config -> 'configurable', '{}'::jsonb)),
           %(thread_priority)s::smallint, %(ttl_strategy)s, %(ttl_minutes)s::float8,
           now() + make_interval(secs => %(ttl_minutes)s::float8 * 60)
    from a
    on conflict do nothing
    returning tenant_id, thread_id, metadata, event_seq
)
insert into run (
    tenant_id, thread_id, run_id, assistant_id, graph_id, status, attempt, priority, multitask_strategy, metadata, kwargs,
    assistant_config, assistant_context, resumable, native, temporary, webhook, caller, caller_key, run_after, claimed_by,
    epoch_ms, lease_expires_at, started_at, event_base
)
select t.tenant_id, t.thread_id, %(run_id)s, a.assistant_id, a.graph_id,
       case when %(claim)s then 'running' else 'pending' end,
       case when %(claim)s then 1 else 0 end,
       %(priority)s, %(multitask_strategy)s,
       a.metadata || t.metadata || %(metadata)s::jsonb,
       %(kwargs)s::json, a.config, a.context, %(resumable)s, %(native)s, %(temporary)s, %(webhook)s, %(caller)s, %(caller_key)s,
       now() + make_interval(secs => %(after_s)s),
       case when %(claim)s then %(worker_id)s end,
       case when %(claim)s then (extract(epoch from clock_timestamp()) * 1000)::bigint else 0 end,
       case when %(claim)s then now() + make_interval(secs => %(lease_s)s) end,
       case when %(claim)s then now() end,
       case when %(claim)s then t.event_seq end
from t, a
returning run_id::text, thread_id::text, assistant_id::text, graph_id, status, attempt, epoch_ms, metadata,
          assistant_config, assistant_context, waystation_time(created_at), waystation_time(updated_at),
          %(claim)s and not waystation_has_state(tenant_id, thread_id), coalesce(event_base, 0),
          case when not %(claim)s and %(notify)s then pg_notify('ws_run', '')::text end;

-- name: lock_thread
-- The thread's row for a decision about its runs; held to the end of the transaction.
select status, active_runs, resting_status
from thread
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
  and (%(visible)s::jsonb is null or metadata @> %(visible)s::jsonb)
for no key update;

-- name: active_runs
-- The pending and running runs of a locked thread.
select run_id::text, status
from run
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and status in ('pending', 'running')
order by created_at, run_id;

-- name: create_queued
-- Adds a pending run to a locked thread. No row: no such assistant.
with a as (
    select assistant_id, graph_id, config, context, metadata
    from assistant
    where tenant_id = %(tenant_id)s and assistant_id = %(assistant_id)s
      and (%(assistant_visible)s::jsonb is null or metadata @> %(assistant_visible)s::jsonb)
), t as (
    update thread
    set status = 'busy',
        active_runs = thread.active_runs + 1,
        resting_status = case when thread.active_runs = 0 then thread.status else thread.resting_status end,
        metadata = thread.metadata || jsonb_build_object('graph_id', a.graph_id, 'assistant_id', a.assistant_id),
        config = a.config || %(config)s::jsonb
            || jsonb_build_object('configurable', coalesce(a.config -> 'configurable', '{}'::jsonb)),
        updated_at = clock_timestamp()
    from a
    where thread.tenant_id = %(tenant_id)s and thread.thread_id = %(thread_id)s
    returning thread.tenant_id, thread.thread_id, thread.metadata
)
insert into run (
    tenant_id, thread_id, run_id, assistant_id, graph_id, status, priority, multitask_strategy, metadata, kwargs,
    assistant_config, assistant_context, resumable, native, temporary, webhook, caller, caller_key, run_after, created_at
)
select t.tenant_id, t.thread_id, %(run_id)s, a.assistant_id, a.graph_id, 'pending', %(priority)s, %(multitask_strategy)s,
       a.metadata || t.metadata || %(metadata)s::jsonb,
       %(kwargs)s::json, a.config, a.context, %(resumable)s, %(native)s, %(temporary)s, %(webhook)s, %(caller)s, %(caller_key)s,
       clock_timestamp() + make_interval(secs => %(after_s)s), clock_timestamp()
from t, a
returning run_id::text, thread_id::text, assistant_id::text, graph_id, status, attempt, epoch_ms, metadata,
          assistant_config, assistant_context, waystation_time(created_at), waystation_time(updated_at), false, 0::bigint,
          pg_notify('ws_run', '')::text;

-- name: remember_idempotency
-- Claims an Idempotency-Key for a run about to be created. No row: the key was used before.
insert into run_idempotency (tenant_id, key, request_hash, thread_id, run_id)
values (%(tenant_id)s, %(key)s, %(request_hash)s, %(thread_id)s, %(run_id)s)
on conflict (tenant_id, key) do nothing
returning run_id;

-- name: recall_idempotency
-- The run that an Idempotency-Key made, and the hash of the request that made it.
select thread_id::text, run_id::text, request_hash
from run_idempotency
where tenant_id = %(tenant_id)s and key = %(key)s;

-- name: forget_idempotency
-- Drops keys older than a day.
delete from run_idempotency
where created_at < now() - interval '1 day';

-- A claim is put together from claim_due, claim_ordinary or claim_last_chances, and claim_them.

-- name: claim_due
-- Up to `limit` pending runs: of each idle thread the oldest that is due. Locked threads and runs are left to whoever
-- holds them.
with candidate as (
    select r.tenant_id, r.thread_id, r.run_id, t.event_seq
    from run r
    join thread t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id
    where r.status = 'pending'
      and r.run_after <= now()
      and not exists (
          select from run busy
          where busy.tenant_id = r.tenant_id and busy.thread_id = r.thread_id and busy.status = 'running'
      )
      and not exists (
          select from run earlier
          where earlier.tenant_id = r.tenant_id and earlier.thread_id = r.thread_id
            and earlier.status = 'pending' and earlier.run_after <= now()
            -- One that has begun goes on before others begin: its events would otherwise be numbered between theirs.
            and (earlier.event_base is null, earlier.created_at, earlier.run_id)
                < (r.event_base is null, r.created_at, r.run_id)
      )

-- name: claim_ordinary
-- Not those that are executed for the last time if their process dies again: see claim_last_chances.
      and (r.crashes = 0 or r.crashes + 1 < %(max_crashes)s)

-- name: claim_last_chances
-- A process tries one of these at a time: if it dies, one of them took it down, and not its neighbour.
      and r.crashes > 0 and r.crashes + 1 >= %(max_crashes)s

-- name: claim_them
-- Makes them this worker's.
    order by r.priority desc, r.run_after, r.created_at
    limit %(limit)s
    for no key update of r, t skip locked
)
update run
set status = 'running',
    attempt = run.attempt + 1,
    epoch_ms = greatest(run.epoch_ms + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint),
    claimed_by = %(worker_id)s,
    lease_expires_at = now() + make_interval(secs => %(lease_s)s),
    started_at = coalesce(run.started_at, now()),
    event_base = coalesce(run.event_base, c.event_seq),
    updated_at = clock_timestamp()
from candidate c
where run.tenant_id = c.tenant_id and run.thread_id = c.thread_id and run.run_id = c.run_id and run.status = 'pending'
returning run.tenant_id, run.thread_id::text, run.run_id::text, run.assistant_id::text, run.graph_id, run.attempt,
          run.crashes, run.epoch_ms, run.kwargs, run.metadata, run.assistant_config, run.assistant_context,
          run.resumable, run.temporary, run.cancel_action, run.cancel_reason, not waystation_has_state(run.tenant_id, run.thread_id),
          case when run.attempt = 1 then greatest(0, extract(epoch from run.started_at - run.run_after))::float8 end,
          run.event_base;

-- name: renew_leases
-- Extends the leases of the attempts named and returns, for those that still hold one, the cancel wish. An attempt that is
-- missing from the answer has lost its lease.
with mine as (
    select r.tenant_id, r.thread_id, r.run_id
    from unnest(%(tenant_ids)s::text[], %(thread_ids)s::uuid[], %(run_ids)s::uuid[], %(attempts)s::int[])
        as u (tenant_id, thread_id, run_id, attempt)
    join run r on r.tenant_id = u.tenant_id and r.thread_id = u.thread_id and r.run_id = u.run_id
        and r.attempt = u.attempt and r.status = 'running'
    order by r.run_id
    for no key update of r
)
update run
set lease_expires_at = now() + make_interval(secs => %(lease_s)s)
from mine
where run.tenant_id = mine.tenant_id and run.thread_id = mine.thread_id and run.run_id = mine.run_id
returning run.tenant_id, run.thread_id::text, run.run_id::text, run.attempt, run.cancel_action, run.cancel_reason;

-- name: finish
-- The outcome of a run, and its thread's new face, in one statement. A run with a cancel wish cannot be finished as if
-- there were none (`cancelled` says that the outcome honours it). No row: the attempt is over, or a wish came first.
with t as (
    select tenant_id, thread_id
    from thread
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s
    for no key update
), r as (
    update run
    set status = %(status)s,
        lease_expires_at = null,
        error = %(error)s::jsonb,
        event_last = run.event_base + %(events)s,
        event_asked = %(asked)s::jsonb,
        ended_at = clock_timestamp(),
        updated_at = clock_timestamp()
    from t
    where run.tenant_id = t.tenant_id and run.thread_id = t.thread_id and run.run_id = %(run_id)s
      and run.status = 'running' and run.attempt = %(attempt)s
      and (run.cancel_action is null or %(cancelled)s)
    returning run.temporary, run.event_last
)
update thread
set active_runs = thread.active_runs - 1,
    status = case when thread.active_runs > 1 then 'busy' else %(resting_status)s end,
    resting_status = %(resting_status)s,
    "values" = case when %(has_values)s then %(values)s::jsonb else thread."values" end,
    interrupts = case when %(has_interrupts)s then %(interrupts)s::jsonb else coalesce(thread.interrupts, '{}'::jsonb) end,
    error = %(error)s::jsonb,
    hidden_at = case when r.temporary then now() end,
    event_seq = greatest(thread.event_seq, r.event_last),
    -- When the thread's TTL runs out counts from its last run.
    expires_at = now() + make_interval(secs => thread.ttl_minutes * 60),
    updated_at = clock_timestamp(),
    state_updated_at = clock_timestamp()
from r
where thread.tenant_id = %(tenant_id)s and thread.thread_id = %(thread_id)s
returning thread.active_runs, thread.event_owed;

-- name: finish_rolled_back
-- Deletes a rolled-back run, whose checkpoints are gone already, and gives its thread the face of the state before it. Its
-- status is again what it was: the state alone does not tell a failed run from one that was stopped.
with t as (
    select tenant_id, thread_id
    from thread
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s
    for no key update
), r as (
    delete from run
    using t
    where run.tenant_id = t.tenant_id and run.thread_id = t.thread_id and run.run_id = %(run_id)s
      and run.status = 'running' and run.attempt = %(attempt)s and run.cancel_action = 'rollback'
    returning run.tenant_id, run.thread_id, run.run_id, run.graph_id, run.attempt, run.epoch_ms, run.resumable, run.native,
              run.temporary, run.event_base
), trace as (
    insert into run_trace (tenant_id, thread_id, run_id, graph_id, attempt, epoch_ms, resumable, native, event_base, event_last)
    select r.tenant_id, r.thread_id, r.run_id, r.graph_id, r.attempt, r.epoch_ms, r.resumable, r.native, r.event_base,
           r.event_base + %(events)s
    from r
)
update thread
set active_runs = thread.active_runs - 1,
    status = case when thread.active_runs > 1 then 'busy' else thread.resting_status end,
    "values" = %(values)s::jsonb,
    interrupts = %(interrupts)s::jsonb,
    error = %(error)s::jsonb,
    hidden_at = case when r.temporary then now() end,
    event_seq = greatest(thread.event_seq, r.event_base + %(events)s),
    updated_at = clock_timestamp(),
    state_updated_at = clock_timestamp()
from r
where thread.tenant_id = %(tenant_id)s and thread.thread_id = %(thread_id)s
returning thread.active_runs, thread.event_owed;

-- name: release
-- Puts a running run back in the queue, at its place: a graceful hand-over and no crash.
update run
set status = 'pending', lease_expires_at = null, claimed_by = null, updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = %(run_id)s
  and status = 'running' and attempt = %(attempt)s
returning pg_notify('ws_run', '')::text;

-- name: sweep_expired
-- Puts runs whose lease ran out back in the queue, one crash more, or the first one at a new place. A cancel wish is kept
-- and honoured by the next claim. Runs that have crashed too often are left to `bury_poisoned`. A server that started less than a lease ago has kept
-- everybody from renewing: its workers get that long to come back.
with expired as (
    select tenant_id, thread_id, run_id
    from run
    where status = 'running' and lease_expires_at < now() and waystation_crashes(run) < %(max_crashes)s
      and (pg_postmaster_start_time() < now() - make_interval(secs => %(lease_s)s) or lease_expires_at = '-infinity')
    order by run_id
    limit %(limit)s
    for no key update skip locked
)
update run
set status = 'pending', lease_expires_at = null, claimed_by = null, crashes = waystation_crashes(run),
    crashed_at = waystation_crash_place(run), updated_at = clock_timestamp()
from expired e
where run.tenant_id = e.tenant_id and run.thread_id = e.thread_id and run.run_id = e.run_id
  and run.status = 'running' and run.lease_expires_at < now()
returning run.tenant_id, run.thread_id::text, run.run_id::text, run.attempt, pg_notify('ws_run', '')::text;

-- name: bury_poisoned
-- Ends runs whose lease ran out for the last time they were allowed to: `error`, or `interrupted` if that was wished.
with expired as (
    select r.tenant_id, r.thread_id, r.run_id
    from run r
    join thread t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id
    where r.status = 'running' and r.lease_expires_at < now() and waystation_crashes(r) >= %(max_crashes)s
      and (pg_postmaster_start_time() < now() - make_interval(secs => %(lease_s)s) or r.lease_expires_at = '-infinity')
    order by r.run_id
    limit %(limit)s
    for no key update of t, r skip locked
), r as (
    update run
    set status = case when run.cancel_action is null then 'error' else 'interrupted' end,
        lease_expires_at = null,
        crashes = run.crashes + 1,
        error = %(error)s::jsonb,
        event_last = waystation_beyond(run),
        ended_at = clock_timestamp(),
        updated_at = clock_timestamp()
    from expired e
    where run.tenant_id = e.tenant_id and run.thread_id = e.thread_id and run.run_id = e.run_id
      and run.status = 'running' and run.lease_expires_at < now()
    returning run.tenant_id, run.thread_id, run.run_id, run.attempt, run.temporary, run.status, run.resumable,
              waystation_beyond(run) as beyond
), t as (
    update thread
    set active_runs = thread.active_runs - 1,
        status = case when thread.active_runs > 1 then 'busy' else 'error' end,
        resting_status = 'error',
        error = %(error)s::jsonb,
        hidden_at = case when r.temporary then now() end,
        event_seq = greatest(thread.event_seq, r.beyond),
        updated_at = clock_timestamp()
    from r
    where thread.tenant_id = r.tenant_id and thread.thread_id = r.thread_id
    returning thread.tenant_id, thread.thread_id
)
select r.tenant_id, r.thread_id::text, r.run_id::text, r.attempt, r.status, r.resumable
from r;

-- name: disown
-- Lets the leases of a worker run out at once, because it is known to be dead: the sweeper takes its runs without delay.
update run
set lease_expires_at = '-infinity'
where status = 'running' and claimed_by = %(worker_id)s
returning run_id::text;

-- name: wish_cancel
-- Writes the wish to stop on running runs of a locked thread. Rollback outweighs interrupt.
with wished as (
    select tenant_id, thread_id, run_id
    from run
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = any(%(run_ids)s::uuid[]) and status = 'running'
    order by run_id
    for no key update
)
update run
set cancel_action = case when run.cancel_action = 'rollback' then 'rollback' else %(action)s end,
    cancel_reason = coalesce(run.cancel_reason, %(reason)s),
    updated_at = clock_timestamp()
from wished w
where run.tenant_id = w.tenant_id and run.thread_id = w.thread_id and run.run_id = w.run_id and run.status = 'running'
returning run.run_id::text,
          pg_notify('ws_cancel', json_build_object('tenant_id', run.tenant_id, 'thread_id', run.thread_id,
              'run_id', run.run_id, 'action', run.cancel_action, 'reason', run.cancel_reason)::text)::text;

-- name: cancel_pending
-- Ends pending runs of a locked thread as interrupted.
with r as (
    update run
    set status = 'interrupted', error = %(error)s::jsonb, event_last = waystation_beyond(run),
        ended_at = clock_timestamp(), updated_at = clock_timestamp()
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = any(%(run_ids)s::uuid[]) and status = 'pending'
    returning run.tenant_id, run.thread_id, run.run_id, run.graph_id, run.attempt, run.epoch_ms, run.resumable, run.native,
              run.temporary, run.event_base, waystation_beyond(run) as beyond
), trace as (
    insert into run_trace (tenant_id, thread_id, run_id, graph_id, attempt, epoch_ms, resumable, native)
    select r.tenant_id, r.thread_id, r.run_id, r.graph_id, r.attempt, r.epoch_ms, r.resumable, r.native
    from r
    where r.event_base is null
), n as (
    select count(*)::int as ended, coalesce(bool_or(temporary), false) as temporary,
           count(*) filter (where event_base is null)::int as owed, max(beyond) as beyond
    from r
), t as (
    update thread
    set active_runs = thread.active_runs - n.ended,
        status = case when thread.active_runs > n.ended then 'busy' else thread.resting_status end,
        hidden_at = case when n.temporary then now() end,
        event_owed = thread.event_owed + n.owed,
        event_seq = greatest(thread.event_seq, n.beyond),
        updated_at = clock_timestamp()
    from n
    where thread.tenant_id = %(tenant_id)s and thread.thread_id = %(thread_id)s and n.ended > 0
    returning thread.thread_id
)
select run_id::text from r;

-- name: delete_pending
-- Removes pending runs of a locked thread (rollback).
with r as (
    delete from run
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = any(%(run_ids)s::uuid[]) and status = 'pending'
    returning run.tenant_id, run.thread_id, run.run_id, run.graph_id, run.attempt, run.epoch_ms, run.resumable, run.native,
              run.temporary, run.event_base, waystation_beyond(run) as beyond
), trace as (
    insert into run_trace (
        tenant_id, thread_id, run_id, graph_id, attempt, epoch_ms, resumable, native, event_base, event_last
    )
    select r.tenant_id, r.thread_id, r.run_id, r.graph_id, r.attempt, r.epoch_ms, r.resumable, r.native, r.event_base,
           r.beyond
    from r
), n as (
    select count(*)::int as ended, coalesce(bool_or(temporary), false) as temporary,
           count(*) filter (where event_base is null)::int as owed, max(beyond) as beyond
    from r
), t as (
    update thread
    set active_runs = thread.active_runs - n.ended,
        status = case when thread.active_runs > n.ended then 'busy' else thread.resting_status end,
        hidden_at = case when n.temporary then now() end,
        event_owed = thread.event_owed + n.owed,
        event_seq = greatest(thread.event_seq, n.beyond),
        updated_at = clock_timestamp()
    from n
    where thread.tenant_id = %(tenant_id)s and thread.thread_id = %(thread_id)s and n.ended > 0
    returning thread.thread_id
)
select run_id::text from r;

-- name: delete_final
-- Removes a run that is final; its checkpoints stay. No row: no such run, or not final.
delete from run
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = %(run_id)s
  and status in ('success', 'error', 'timeout', 'interrupted')
returning run_id::text;

-- name: run_state
-- What a reader or a canceller needs to know of one run, if its thread exists for the caller.
select status, attempt, epoch_ms, resumable, error, temporary, cancel_action, cancel_reason
from run
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = %(run_id)s
  and (%(visible)s::jsonb is null or exists (
      select from thread t
      where t.tenant_id = run.tenant_id and t.thread_id = run.thread_id and t.metadata @> %(visible)s::jsonb
  ));

-- name: run_output
-- A run's status and error and its thread's values and interrupts, for an answer to `wait` and `join`.
select r.status, r.error, t."values"::text, t.interrupts
from run r
join thread t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id
where r.tenant_id = %(tenant_id)s and r.thread_id = %(thread_id)s and r.run_id = %(run_id)s;

-- name: run_face
-- A run as clients see it, as JSON text.
select waystation_run(run)::text
from run
join thread on thread.tenant_id = run.tenant_id and thread.thread_id = run.thread_id
where run.tenant_id = %(tenant_id)s and run.thread_id = %(thread_id)s and run.run_id = %(run_id)s
  and thread.hidden_at is null
  and (%(visible)s::jsonb is null or thread.metadata @> %(visible)s::jsonb);

-- name: list_faces
-- The runs of a thread as clients see them, newest first, as one JSON array. `fields` null means all.
select coalesce(json_agg(
    case when %(fields)s::text[] is null then face
         else (select json_object_agg(f.key, f.value) from json_each(face) f where f.key = any(%(fields)s::text[])) end
    order by created_at desc, run_id desc), '[]'::json)::text
from (
    select waystation_run(run) as face, created_at, run_id
    from run
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s
      and (%(status)s::text is null or status = %(status)s)
    order by created_at desc, run_id desc
    limit %(limit)s offset %(offset)s
) listed;

-- name: thread_exists
-- Whether a thread is there for clients.
select true
from thread
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
  and (%(visible)s::jsonb is null or metadata @> %(visible)s::jsonb);

-- name: cancellable_by_status
-- Threads and runs that a bulk cancel by status means.
select run.thread_id::text, run.run_id::text
from run
join thread on thread.tenant_id = run.tenant_id and thread.thread_id = run.thread_id
where run.tenant_id = %(tenant_id)s and run.status = any(%(statuses)s::text[]) and thread.hidden_at is null
  and (%(visible)s::jsonb is null or thread.metadata @> %(visible)s::jsonb)
order by run.thread_id, run.run_id;

-- name: pending_up_to
-- How many runs wait, counted no further than `limit`.
select count(*)::int
from (select from run where status = 'pending' limit %(limit)s) waiting;
