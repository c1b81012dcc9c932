-- What clients see of rows, as SQL functions: JSON goes from Postgres to the client as it is, and no two statements can
-- show the same thing differently.

-- A time as the API spells it: UTC, six digits of microseconds, +00:00.
create function waystation_time(t timestamptz) returns text
language sql stable
return to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00';

-- A thread. `error` and `interrupts` are left out until a run or a state update has set them.
create function waystation_thread(t thread) returns json
language sql stable
return case
    when t.interrupts is not null then json_build_object(
        'thread_id', t.thread_id,
        'created_at', waystation_time(t.created_at),
        'updated_at', waystation_time(t.updated_at),
        'state_updated_at', waystation_time(t.state_updated_at),
        'metadata', t.metadata,
        'status', t.status,
        'config', t.config,
        'values', t."values",
        'error', t.error,
        'interrupts', t.interrupts)
    when t.error is not null then json_build_object(
        'thread_id', t.thread_id,
        'created_at', waystation_time(t.created_at),
        'updated_at', waystation_time(t.updated_at),
        'state_updated_at', waystation_time(t.state_updated_at),
        'metadata', t.metadata,
        'status', t.status,
        'config', t.config,
        'values', t."values",
        'error', t.error)
    else json_build_object(
        'thread_id', t.thread_id,
        'created_at', waystation_time(t.created_at),
        'updated_at', waystation_time(t.updated_at),
        'state_updated_at', waystation_time(t.state_updated_at),
        'metadata', t.metadata,
        'status', t.status,
        'config', t.config,
        'values', t."values")
end;

-- When and how a thread expires; null for a thread that stays.
create function waystation_thread_ttl(t thread) returns json
language sql stable
return case when t.ttl_minutes is not null then json_build_object(
    'strategy', t.ttl_strategy,
    'ttl_minutes', t.ttl_minutes,
    'expires_at', waystation_time(t.expires_at)) end;

-- The chosen members of a thread, and what `wishes` takes out of it: `wishes` is
-- [{"alias": "first", "root": "values", "path": ["log", "0"]}]. The large columns are touched only where they are asked for.
create function waystation_thread_parts(t thread, fields text[], wishes jsonb) returns json
language sql stable
return (
    select json_object_agg(part.name, part.value)
    from (
        select field.name, field.value
        from (values
            ('thread_id', to_json(t.thread_id)),
            ('created_at', to_json(waystation_time(t.created_at))),
            ('updated_at', to_json(waystation_time(t.updated_at))),
            ('state_updated_at', to_json(waystation_time(t.state_updated_at))),
            ('metadata', to_json(t.metadata)),
            ('status', to_json(t.status)),
            ('config', to_json(t.config)),
            ('values', case when 'values' = any(fields) then to_json(t."values") end),
            ('error', to_json(t.error)),
            ('interrupts', case when 'interrupts' = any(fields) then to_json(t.interrupts) end),
            ('ttl', waystation_thread_ttl(t))
        ) as field (name, value)
        where field.name = any(fields)
          and (field.name <> 'interrupts' or t.interrupts is not null)
          and (field.name <> 'error' or t.interrupts is not null or t.error is not null)
          and (field.name <> 'ttl' or t.ttl_minutes is not null)
        union all
        select 'extracted', (
            select json_object_agg(
                wish.alias,
                case wish.root
                    when 'values' then t."values"
                    when 'metadata' then t.metadata
                    when 'config' then t.config
                    when 'interrupts' then t.interrupts
                end #> wish.path)
            from jsonb_to_recordset(wishes) as wish (alias text, root text, path text[])
        )
        where wishes is not null
    ) as part
);
