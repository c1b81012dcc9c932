-- Crons: runs that are created at times. Nothing refers to a cron and a cron refers to nothing by a foreign key: a thread or
-- an assistant that is gone is noticed when the cron is due, and its deletion costs the same whether there are crons or not.

create table cron (
    tenant_id        text        not null default 'default',
    cron_id          uuid        not null,
    assistant_id     uuid        not null,
    thread_id        uuid,
    user_id          text        not null default '',
    -- Identity, permissions and user object of whoever made it: what its runs get as langgraph_auth_user.
    owner            json        not null default '{}',
    schedule         text        not null,
    timezone         text,
    end_time         timestamptz,
    -- json and not jsonb: inputs come back with their members in the order they were sent in.
    payload          json        not null,
    metadata         jsonb       not null default '{}',
    on_run_completed text        check (on_run_completed in ('delete', 'keep')),
    enabled          boolean     not null default true,
    -- Why the server switched it off.
    disabled_reason  text,
    next_run_at      timestamptz not null,
    -- Null for one that does not fire: those that are off or at their end are in nobody's way.
    due_at           timestamptz generated always as (
        case when enabled and (end_time is null or next_run_at <= end_time) then next_run_at end) stored,
    -- How many firings in a row came after the tick that followed theirs.
    late_firings     integer     not null default 0,
    created_at       timestamptz not null default clock_timestamp(),
    updated_at       timestamptz not null default clock_timestamp(),
    primary key (tenant_id, cron_id),
    check ((thread_id is null) = (on_run_completed is not null)),
    check (disabled_reason is null or not enabled)
);
create index cron_due on cron (due_at) where due_at is not null;
create index cron_by_age on cron (tenant_id, created_at desc, cron_id desc);
create index cron_by_thread on cron (tenant_id, thread_id) where thread_id is not null;

-- A cron as clients see it; why the server switched it off only where it did.
create function waystation_cron(c cron) returns json
language sql stable
return (
    select json_object_agg(member.name, member.value)
    from (values
        ('cron_id', to_json(c.cron_id)),
        ('assistant_id', to_json(c.assistant_id)),
        ('thread_id', to_json(c.thread_id)),
        ('user_id', to_json(c.user_id)),
        ('end_time', to_json(waystation_time(c.end_time))),
        ('schedule', to_json(c.schedule)),
        ('timezone', to_json(c.timezone)),
        ('payload', c.payload),
        ('next_run_date', to_json(waystation_time(c.next_run_at))),
        ('metadata', to_json(c.metadata)),
        ('on_run_completed', to_json(c.on_run_completed)),
        ('enabled', to_json(c.enabled)),
        ('disabled_reason', to_json(c.disabled_reason)),
        ('created_at', to_json(waystation_time(c.created_at))),
        ('updated_at', to_json(waystation_time(c.updated_at)))
    ) as member (name, value)
    where member.name <> 'disabled_reason' or c.disabled_reason is not null
);
