-- The kill switch: whose runs are stopped and refused until somebody lifts it, or until its time is over. Runs say who
-- asked for them beside their kwargs, which may be encrypted.

create table guard_kill (
    -- '*' stands for all tenants: only the command line of an operator writes that.
    tenant_id   text        not null,
    kill_id     uuid        not null default gen_random_uuid(),
    scope       text        not null check (scope in ('tenant', 'graph', 'assistant', 'user', 'key')),
    -- The graph, assistant, user or key; for the scope `tenant` the tenant once more.
    owner       text        not null,
    reason      text        not null default '',
    made_by     text        not null default '',
    created_at  timestamptz not null default clock_timestamp(),
    until       timestamptz,
    lifted_at   timestamptz,
    lifted_by   text,
    primary key (tenant_id, kill_id)
);
create index guard_kill_in_force on guard_kill (tenant_id) where lifted_at is null;
create index guard_kill_by_age on guard_kill (tenant_id, created_at desc, kill_id desc);

alter table run add column caller text;
alter table run add column caller_key text;

create function waystation_kill(k guard_kill) returns json
language sql stable
return json_build_object(
    'kill_id', k.kill_id,
    'tenant_id', k.tenant_id,
    'scope', k.scope,
    'id', k.owner,
    'reason', k.reason,
    'made_by', k.made_by,
    'created_at', waystation_time(k.created_at),
    'until', waystation_time(k.until),
    'lifted_at', waystation_time(k.lifted_at),
    'lifted_by', k.lifted_by,
    'in_force', k.lifted_at is null and (k.until is null or k.until > clock_timestamp()));

-- Why a run is to be stopped; null where it is not.
create function waystation_killed(r run) returns text
language sql stable
return (
    select k.reason
    from guard_kill k
    where k.lifted_at is null and (k.until is null or k.until > now())
      and k.tenant_id in (r.tenant_id, '*')
      and case k.scope
              when 'tenant' then true
              when 'graph' then k.owner = r.graph_id
              when 'assistant' then k.owner = r.assistant_id::text
              when 'user' then k.owner = r.caller
              when 'key' then k.owner = r.caller_key
          end
    order by k.created_at
    limit 1
);
