-- Webhooks: what is to be told of a run's end is written down in the statement that ends it, whichever that is, and sent
-- later. A trigger, so that no way to end is forgotten, also none of a process of the version before; its WHEN is all that
-- a run without webhook pays.

alter table run add column webhook text;

create table webhook_delivery (
    tenant_id       text        not null default 'default',
    delivery_id     uuid        not null,
    thread_id       uuid        not null,
    run_id          uuid        not null,
    url             text        not null,
    -- What the thread's metadata was: whoever could see the thread can see what was told of it, also when it is gone.
    metadata        jsonb       not null default '{}',
    -- The body, but for the time at which it is sent.
    payload         json        not null,
    status          text        not null default 'pending' check (status in ('pending', 'delivered', 'spent')),
    -- The fencing token: it only grows. `tries` begins again at a replay.
    attempt         integer     not null default 0,
    tries           integer     not null default 0,
    -- When it is to be sent; while it is being sent, when it is taken to be lost.
    due_at          timestamptz not null default clock_timestamp(),
    response_status integer,
    error           text,
    created_at      timestamptz not null default clock_timestamp(),
    updated_at      timestamptz not null default clock_timestamp(),
    ended_at        timestamptz,
    primary key (tenant_id, delivery_id),
    check ((status = 'pending') = (ended_at is null))
);
create index webhook_delivery_due on webhook_delivery (due_at) where status = 'pending';
create index webhook_delivery_by_age on webhook_delivery (tenant_id, created_at desc, delivery_id desc);
create index webhook_delivery_by_run on webhook_delivery (tenant_id, thread_id, run_id);
create index webhook_delivery_ended on webhook_delivery (ended_at) where ended_at is not null;

-- A delivery as clients see it.
create function waystation_webhook_delivery(d webhook_delivery) returns json
language sql stable
return json_build_object(
    'delivery_id', d.delivery_id,
    'thread_id', d.thread_id,
    'run_id', d.run_id,
    'url', d.url,
    'status', d.status,
    'attempts', d.attempt,
    'next_attempt_at', case when d.status = 'pending' then waystation_time(d.due_at) end,
    'response_status', d.response_status,
    'error', d.error,
    'created_at', waystation_time(d.created_at),
    'updated_at', waystation_time(d.updated_at),
    'ended_at', waystation_time(d.ended_at));

-- After the statement that ended or removed a run: its thread has its new face already, or is gone.
create function waystation_queue_webhook() returns trigger
language plpgsql as $$
declare
    r run;
    t thread;
    outcome text;
    why jsonb;
begin
    if tg_op = 'DELETE' then r := old; else r := new; end if;
    select * into t from thread where thread.tenant_id = r.tenant_id and thread.thread_id = r.thread_id;
    if tg_op = 'UPDATE' then
        outcome := r.status;
        why := coalesce(r.error, case when r.status = 'interrupted' then jsonb_build_object(
            'error', 'UserInterrupt', 'message', coalesce(r.cancel_reason, 'stopped before it began')) end);
    elsif t.thread_id is null then
        outcome := 'interrupted';
        why := jsonb_build_object('error', 'UserInterrupt', 'message', 'the thread was deleted');
    else
        outcome := 'rollback';
        why := jsonb_build_object(
            'error', 'UserRollback', 'message', coalesce(r.cancel_reason, 'rolled back before it began'));
    end if;
    insert into webhook_delivery (tenant_id, delivery_id, thread_id, run_id, url, metadata, payload)
    values (r.tenant_id, gen_random_uuid(), r.thread_id, r.run_id, r.webhook, coalesce(t.metadata, r.metadata), (
        select json_object_agg(member.name, member.value)
        from (values
            ('run_id', to_json(r.run_id)),
            ('thread_id', to_json(r.thread_id)),
            ('assistant_id', to_json(r.assistant_id)),
            ('metadata', to_json(r.metadata)),
            ('status', to_json(outcome)),
            ('kwargs', r.kwargs),
            ('multitask_strategy', to_json(r.multitask_strategy)),
            ('created_at', to_json(waystation_time(r.created_at))),
            ('updated_at', to_json(waystation_time(r.updated_at))),
            ('langsmith_session_name', null::json),
            ('run_started_at', to_json(waystation_time(r.started_at))),
            ('run_ended_at', to_json(waystation_time(coalesce(r.ended_at, clock_timestamp())))),
            ('values', case when not r.temporary and outcome <> 'rollback' then to_json(t."values") end),
            ('error', to_json(why))
        ) as member (name, value)
        where member.name <> 'error' or why is not null
    ));
    perform pg_notify('ws_webhook', '');
    return null;
end
$$;

create trigger run_webhook_ended
after update of status on run
for each row
when (new.webhook is not null and new.ended_at is not null and old.ended_at is null)
execute function waystation_queue_webhook();

create trigger run_webhook_removed
after delete on run
for each row
when (old.webhook is not null and old.ended_at is null)
execute function waystation_queue_webhook();
