-- Tenants in LangGraph's tables, which know none: the checkpoints of a tenant's thread stand under "tenant/thread", those
-- of the default tenant under the thread's id as ever. And the keys by which callers show who they are.

create function waystation_checkpoint_thread(tenant text, thread uuid) returns text
language sql immutable
return case when tenant = 'default' then thread::text else tenant || '/' || thread::text end;

-- As before for the default tenant, the only one that an older process knows.
create or replace function waystation_head(r run) returns text
language sql stable
return (
    select c.checkpoint_id
    from checkpoints c
    where c.thread_id = waystation_checkpoint_thread(r.tenant_id, r.thread_id) and c.checkpoint_ns = ''
    order by c.checkpoint_id desc
    limit 1
);

-- Volatile like its elder (0011), which stays for processes of the version before.
create function waystation_has_state(tenant text, thread uuid) returns boolean
language plpgsql volatile as $$
begin
    return exists (select from checkpoints where checkpoints.thread_id = waystation_checkpoint_thread(tenant, thread));
end
$$;

create table api_key (
    -- The part of a key that is no secret. Not below a tenant: a key is what says which tenant its bearer belongs to.
    key_id        text        not null primary key,
    tenant_id     text        not null default 'default',
    identity      text        not null,
    name          text        not null default '',
    roles         text[]      not null check (roles <@ array['admin', 'service', 'user', 'reader'] and roles <> '{}'),
    salt          bytea       not null,
    digest        bytea       not null,
    is_peppered   boolean     not null default false,
    created_at    timestamptz not null default clock_timestamp(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz
);
create index api_key_by_tenant on api_key (tenant_id, created_at desc);
