-- Crons. JSON comes as the client gets it. `visible` is null, or what a caller's filter asks of the metadata: other crons do
-- not exist for that caller.

-- name: database_time
-- The only clock that decides when a cron is due.
select clock_timestamp();

-- name: assistant_exists
-- Whether there is such an assistant.
select true from assistant where tenant_id = %(tenant_id)s and assistant_id = %(assistant_id)s;

-- name: thread_exists
-- Whether clients with this filter can see a thread.
select true
from thread
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
  and metadata @> %(visible)s::jsonb;

-- name: create_cron
-- Makes a cron.
insert into cron (
    tenant_id, cron_id, assistant_id, thread_id, user_id, owner, schedule, timezone, end_time, payload, metadata,
    on_run_completed, enabled, next_run_at, created_at, updated_at
)
values (
    %(tenant_id)s, %(cron_id)s, %(assistant_id)s, %(thread_id)s, %(user_id)s, %(owner)s::json, %(schedule)s, %(timezone)s,
    %(end_time)s, %(payload)s::json, %(metadata)s::jsonb, %(on_run_completed)s, %(enabled)s, %(next_run_at)s,
    statement_timestamp(), statement_timestamp()
)
returning waystation_cron(cron)::text;

-- name: get_cron
-- One cron.
select waystation_cron(c)::text
from cron c
where c.tenant_id = %(tenant_id)s and c.cron_id = %(cron_id)s and c.metadata @> %(visible)s::jsonb;

-- name: lock_cron
-- What a change needs to know of a cron, held to the end of the transaction.
select schedule, timezone, enabled, payload, next_run_at
from cron
where tenant_id = %(tenant_id)s and cron_id = %(cron_id)s and metadata @> %(visible)s::jsonb
for update;

-- name: patch_cron
-- Changes a locked cron. Members that are null stay, except `end_time` where `sets_end` says so; metadata is merged.
update cron
set schedule = coalesce(%(schedule)s, schedule),
    timezone = coalesce(%(timezone)s, timezone),
    end_time = case when %(sets_end)s then %(end_time)s::timestamptz else end_time end,
    payload = %(payload)s::json,
    metadata = metadata || coalesce(%(metadata)s::jsonb, '{}'),
    on_run_completed = case when thread_id is null then coalesce(%(on_run_completed)s, on_run_completed) end,
    enabled = coalesce(%(enabled)s, enabled),
    disabled_reason = case when %(enabled)s is null then disabled_reason end,
    late_firings = case when %(next_run_at)s::timestamptz is null then late_firings else 0 end,
    next_run_at = coalesce(%(next_run_at)s::timestamptz, next_run_at),
    updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and cron_id = %(cron_id)s
returning waystation_cron(cron)::text;

-- name: delete_cron
-- Deletes a cron; its runs stay.
delete from cron
where tenant_id = %(tenant_id)s and cron_id = %(cron_id)s and metadata @> %(visible)s::jsonb
returning cron_id::text;

-- name: search_crons
-- A page of crons, the newest first unless sorted; equal ones by id, so that pages do not overlap.
select case
    when %(fields)s::text[] is null then waystation_cron(c)::text
    else (
        select json_object_agg(member.key, member.value)::text
        from json_each(waystation_cron(c)) as member
        where member.key = any(%(fields)s::text[])
    )
end
from cron c
where c.tenant_id = %(tenant_id)s and c.metadata @> %(visible)s::jsonb
  and (%(metadata)s::jsonb is null or c.metadata @> %(metadata)s::jsonb)
  and (%(assistant_id)s::uuid is null or c.assistant_id = %(assistant_id)s)
  and (%(thread_id)s::uuid is null or c.thread_id = %(thread_id)s)
  and (%(enabled)s::boolean is null or c.enabled = %(enabled)s)
order by
    case when %(ascending)s then case %(sort_by)s
        when 'created_at' then c.created_at when 'updated_at' then c.updated_at
        when 'next_run_date' then c.next_run_at when 'end_time' then c.end_time end end,
    case when not %(ascending)s then case %(sort_by)s
        when 'created_at' then c.created_at when 'updated_at' then c.updated_at
        when 'next_run_date' then c.next_run_at when 'end_time' then c.end_time end end desc nulls last,
    case when %(ascending)s then case %(sort_by)s
        when 'assistant_id' then c.assistant_id when 'thread_id' then c.thread_id end end,
    case when not %(ascending)s then case %(sort_by)s
        when 'assistant_id' then c.assistant_id when 'thread_id' then c.thread_id end end desc nulls last,
    case when %(ascending)s then c.cron_id end,
    case when not %(ascending)s then c.cron_id end desc
limit %(limit)s offset %(offset)s;

-- name: count_crons
-- How many crons match.
select count(*)
from cron c
where c.tenant_id = %(tenant_id)s and c.metadata @> %(visible)s::jsonb
  and (%(metadata)s::jsonb is null or c.metadata @> %(metadata)s::jsonb)
  and (%(assistant_id)s::uuid is null or c.assistant_id = %(assistant_id)s)
  and (%(thread_id)s::uuid is null or c.thread_id = %(thread_id)s)
  and (%(enabled)s::boolean is null or c.enabled = %(enabled)s);

-- name: take_due
-- The cron that has been due longest, held to the end of the transaction, which creates its run and moves it on: whoever
-- else looks meanwhile finds the next one. Null runs: its thread is gone.
select c.tenant_id, c.cron_id::text, c.assistant_id::text, c.thread_id::text, c.owner, c.schedule, c.timezone, c.payload,
       c.metadata, c.on_run_completed, c.due_at, clock_timestamp(), c.late_firings,
       (select t.active_runs from thread t
        where t.tenant_id = c.tenant_id and t.thread_id = c.thread_id and t.hidden_at is null)
from cron c
where c.due_at <= clock_timestamp()
order by c.due_at
limit 1
for update skip locked;

-- name: move_on
-- The next tick of a cron that this transaction holds.
update cron
set next_run_at = %(next_run_at)s, late_firings = %(late_firings)s
where tenant_id = %(tenant_id)s and cron_id = %(cron_id)s;

-- name: switch_off
-- Ends the firing of a cron that cannot fire.
update cron
set enabled = false, disabled_reason = %(reason)s, updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and cron_id = %(cron_id)s;

-- name: until_due
-- Seconds until the next cron is due, below 0 when one is overdue. Null: none is.
select extract(epoch from min(due_at) - clock_timestamp())::float8
from cron
where due_at is not null;
