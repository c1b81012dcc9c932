-- Assistants and their versions. JSON comes as the client gets it. `visible` is null, or what a caller's filter asks of
-- the metadata: other assistants do not exist for that caller. Every version ever made stays; `version` names the one shown.

-- name: ensure_defaults
-- Makes the assistants that graphs have from the start, where they are missing.
with made as (
    insert into assistant (tenant_id, assistant_id, graph_id, name, description, metadata)
    select %(tenant_id)s, g.assistant_id, g.graph_id, g.graph_id, g.description, '{"created_by": "system"}'
    from unnest(%(assistant_ids)s::uuid[], %(graph_ids)s::text[], %(descriptions)s::text[])
         as g (assistant_id, graph_id, description)
    on conflict do nothing
    returning *
)
insert into assistant_version (
    tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, created_at
)
select tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, created_at
from made;

-- name: create_assistant
-- Makes an assistant and its first version. No row: the id is taken.
with made as (
    insert into assistant (tenant_id, assistant_id, graph_id, name, description, config, context, metadata)
    values (
        %(tenant_id)s, %(assistant_id)s, %(graph_id)s, %(name)s, %(description)s,
        %(config)s::jsonb, %(context)s::jsonb, %(metadata)s::jsonb
    )
    on conflict do nothing
    returning *, waystation_assistant(assistant)::text as face
), first_version as (
    insert into assistant_version (
        tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, created_at
    )
    select tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, created_at
    from made
)
select face from made;

-- name: get_assistant
-- One assistant.
select waystation_assistant(a)::text
from assistant a
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb);

-- name: assistant_graph
-- What opening an assistant's graph needs.
select a.graph_id, a.config, a.context
from assistant a
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb);

-- name: lock_assistant
-- Holds an assistant for a change, so that versions are numbered one after the other.
select a.version
from assistant a
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb)
for no key update;

-- name: patch_assistant
-- Changes a locked assistant and keeps the result as its next version: the number after the highest there ever was.
-- Members that are null stay; metadata is merged. `config.configurable` and `context` always have the same content.
with next_version as (
    select max(version) + 1 as number
    from assistant_version
    where tenant_id = %(tenant_id)s and assistant_id = %(assistant_id)s
), changed as (
    update assistant a
    set graph_id = coalesce(%(graph_id)s, a.graph_id),
        name = coalesce(%(name)s, a.name),
        description = coalesce(%(description)s, a.description),
        metadata = a.metadata || coalesce(%(metadata)s::jsonb, '{}'),
        config = coalesce(%(config)s::jsonb, case
            when %(context)s::jsonb = '{}' then a.config - 'configurable'
            when %(context)s::jsonb is not null then a.config || jsonb_build_object('configurable', %(context)s::jsonb)
            else a.config
        end),
        context = coalesce(%(context)s::jsonb, case
            when %(config)s::jsonb is not null then coalesce(%(config)s::jsonb -> 'configurable', '{}')
            else a.context
        end),
        version = next_version.number,
        updated_at = clock_timestamp()
    from next_version
    where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
    returning a.*, waystation_assistant(a)::text as face
), kept as (
    insert into assistant_version (
        tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, created_at
    )
    select tenant_id, assistant_id, version, graph_id, name, description, config, context, metadata, updated_at
    from changed
)
select face from changed;

-- name: set_latest
-- Shows a version again, with everything that it was. No row: no such version, or no such assistant.
update assistant a
set graph_id = v.graph_id,
    name = v.name,
    description = v.description,
    config = v.config,
    context = v.context,
    metadata = v.metadata,
    version = v.version,
    updated_at = clock_timestamp()
from assistant_version v
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
  and v.tenant_id = a.tenant_id and v.assistant_id = a.assistant_id and v.version = %(version)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb)
returning waystation_assistant(a)::text;

-- name: delete_assistant
-- Deletes an assistant with its versions. Its runs and threads stay.
delete from assistant a
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb)
returning a.assistant_id::text;

-- name: threads_of_assistant
-- Some of the threads that an assistant ran on last.
select t.thread_id::text
from thread t
where t.tenant_id = %(tenant_id)s and t.hidden_at is null
  and t.metadata @> jsonb_build_object('assistant_id', %(assistant_id)s::text)
  and (%(visible)s::jsonb is null or t.metadata @> %(visible)s::jsonb)
limit %(limit)s;

-- name: search_assistants
-- A page of assistants, the newest first unless sorted; equal ones by id, so that pages do not overlap.
select case
    when %(fields)s::text[] is null then waystation_assistant(a)::text
    else (
        select json_object_agg(member.key, member.value)::text
        from json_each(waystation_assistant(a)) as member
        where member.key = any(%(fields)s::text[])
    )
end
from assistant a
where a.tenant_id = %(tenant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb)
  and (%(metadata)s::jsonb is null or a.metadata @> %(metadata)s::jsonb)
  and (%(graph_id)s::text is null or a.graph_id = %(graph_id)s)
  and (%(name)s::text is null or position(lower(%(name)s) in lower(a.name)) > 0)
order by
    case when %(ascending)s then case %(sort_by)s
        when 'created_at' then a.created_at when 'updated_at' then a.updated_at end end,
    case when not %(ascending)s then case %(sort_by)s
        when 'created_at' then a.created_at when 'updated_at' then a.updated_at end end desc,
    case when %(ascending)s then case %(sort_by)s
        when 'name' then lower(a.name) when 'graph_id' then a.graph_id end end,
    case when not %(ascending)s then case %(sort_by)s
        when 'name' then lower(a.name) when 'graph_id' then a.graph_id end end desc,
    case when %(ascending)s then a.assistant_id end,
    case when not %(ascending)s then a.assistant_id end desc
limit %(limit)s offset %(offset)s;

-- name: count_assistants
-- How many assistants match.
select count(*)
from assistant a
where a.tenant_id = %(tenant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb)
  and (%(metadata)s::jsonb is null or a.metadata @> %(metadata)s::jsonb)
  and (%(graph_id)s::text is null or a.graph_id = %(graph_id)s)
  and (%(name)s::text is null or position(lower(%(name)s) in lower(a.name)) > 0);

-- name: versions
-- A page of an assistant's versions as a JSON list, the newest first. Null: there is no such assistant.
select coalesce((
    select json_agg(v.face order by v.version desc)
    from (
        select version, json_build_object(
            'assistant_id', assistant_id,
            'version', version,
            'graph_id', graph_id,
            'config', config,
            'context', context,
            'metadata', metadata,
            'created_at', waystation_time(created_at),
            'name', name,
            'description', description) as face
        from assistant_version
        where tenant_id = a.tenant_id and assistant_id = a.assistant_id
          and (%(metadata)s::jsonb is null or metadata @> %(metadata)s::jsonb)
        order by version desc
        limit %(limit)s offset %(offset)s
    ) as v
), '[]')::text
from assistant a
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s
  and (%(visible)s::jsonb is null or a.metadata @> %(visible)s::jsonb);
