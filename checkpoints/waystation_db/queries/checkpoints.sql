-- LangGraph's own tables in the layout of langgraph-checkpoint-postgres. The write of a batch is put together from the
-- fragments below into one statement, so that it is one round trip and one transaction without saying so:
-- fence (or no_fence), then what the batch has of put_blobs, put_checkpoints, remember_writes, put_writes and
-- replace_writes, then live_fences (or no_fences).

-- name: fence
-- The attempts of this batch that still hold their runs, locked until the commit, so that no sweep comes in between.
-- The select around the first array hides its length: seeing it, Postgres finds a plan for this very batch cheaper than
-- the prepared one and plans anew each time, which costs as much as all the rest.
live as materialized (
    select f.n::int as n
    from unnest((select %(f_tenant)s::text[]), %(f_thread)s, %(f_run)s, %(f_attempt)s)
        with ordinality as f (tenant_id, thread_id, run_id, attempt, n)
    join run r
        on r.tenant_id = f.tenant_id
        and r.thread_id = f.thread_id::uuid
        and r.run_id = f.run_id::uuid
    where r.status = 'running' and r.attempt = f.attempt
    order by r.run_id
    for share of r
),
allowed as (select n from live union all select 0)

-- name: no_fence
-- Every row of the batch is unfenced.
allowed as (select 0 as n)

-- name: live_fences
-- What a fenced batch answers: the fences that held.
select n from live

-- name: no_fences
-- What an unfenced batch answers.
select n from allowed

-- name: put_blobs
-- A channel's value at a version never changes: the first one stays.
blobs as (
    insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    select b.thread_id, b.checkpoint_ns, b.channel, b.version, b.type, b.blob
    from unnest(%(b_fence)s, %(b_thread)s, %(b_ns)s, %(b_channel)s, %(b_version)s, %(b_type)s, %(b_blob)s)
        as b (fence, thread_id, checkpoint_ns, channel, version, type, blob)
    where b.fence in (select n from allowed)
    on conflict (thread_id, checkpoint_ns, channel, version) do nothing
)

-- name: put_checkpoints
-- A checkpoint put again (durability "exit", a retry) replaces what it said.
heads as (
    insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    select c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint, c.metadata
    from unnest(%(c_fence)s, %(c_thread)s, %(c_ns)s, %(c_id)s, %(c_parent)s, %(c_checkpoint)s, %(c_metadata)s)
        as c (fence, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    where c.fence in (select n from allowed)
    on conflict (thread_id, checkpoint_ns, checkpoint_id) do update
    set checkpoint = excluded.checkpoint, metadata = excluded.metadata
)

-- name: remember_writes
-- What stood where a run now writes on a checkpoint of another run; what earlier runs of the thread had to remember
-- is of no more use. All of a statement sees the tables as they were before it.
forgotten as (
    delete from checkpoint_write_before b
    using unnest(%(u_fence)s, %(u_tenant)s, %(u_thread)s, %(u_run)s) as u (fence, tenant_id, thread_id, run_id)
    where u.fence in (select n from allowed)
        and b.tenant_id = u.tenant_id and b.thread_id = u.thread_id::uuid and b.run_id <> u.run_id::uuid
),
remembered as (
    insert into checkpoint_write_before
        (tenant_id, thread_id, run_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
    select
        u.tenant_id, u.thread_id::uuid, u.run_id::uuid, u.checkpoint_ns, u.checkpoint_id, u.task_id, u.idx,
        w.task_path, w.channel, w.type, w.blob
    from unnest(
            %(u_fence)s, %(u_tenant)s, %(u_thread)s, %(u_run)s, %(u_ns)s, %(u_checkpoint)s, %(u_task)s, %(u_idx)s
        ) as u (fence, tenant_id, thread_id, run_id, checkpoint_ns, checkpoint_id, task_id, idx)
    left join checkpoint_writes w
        on w.thread_id = waystation_checkpoint_thread(u.tenant_id, u.thread_id::uuid)
        and w.checkpoint_ns = u.checkpoint_ns
        and w.checkpoint_id = u.checkpoint_id
        and w.task_id = u.task_id
        and w.idx = u.idx
    where u.fence in (select n from allowed)
    -- A second write of the same run does not change what was there before it.
    on conflict do nothing
)

-- name: put_writes
-- What a task wrote; a task that is run again does not overwrite what is there.
writes as (
    insert into checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    select w.thread_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.task_path, w.idx, w.channel, w.type, w.blob
    from unnest(
            %(w_fence)s, %(w_thread)s, %(w_ns)s, %(w_checkpoint)s, %(w_task)s, %(w_path)s, %(w_idx)s, %(w_channel)s,
            %(w_type)s, %(w_blob)s
        ) as w (fence, thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    where w.fence in (select n from allowed)
    on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do nothing
)

-- name: replace_writes
-- Errors, interrupts and resume values of a task: the last one counts.
replaced as (
    insert into checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    select r.thread_id, r.checkpoint_ns, r.checkpoint_id, r.task_id, r.task_path, r.idx, r.channel, r.type, r.blob
    from unnest(
            %(r_fence)s, %(r_thread)s, %(r_ns)s, %(r_checkpoint)s, %(r_task)s, %(r_path)s, %(r_idx)s, %(r_channel)s,
            %(r_type)s, %(r_blob)s
        ) as r (fence, thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    where r.fence in (select n from allowed)
    on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do update
    set channel = excluded.channel, type = excluded.type, blob = excluded.blob
)

-- name: select_checkpoints
-- Checkpoints with their values and pending writes; LangGraph's code puts its condition behind. Each value is looked
-- up by primary key: joined as sets, the values of a long thread would all be read to find those of one checkpoint.
select
    thread_id,
    checkpoint,
    checkpoint_ns,
    checkpoint_id,
    parent_checkpoint_id,
    metadata,
    (
        select array_agg(array[b.channel::bytea, b.type::bytea, b.blob])
        from jsonb_each_text(
            -- Whatever somebody wrote there: what it is worth is judged where it is built.
            case jsonb_typeof(checkpoint -> 'channel_versions') when 'object' then checkpoint -> 'channel_versions' end
        ) as v
        cross join lateral (
            select bl.channel, bl.type, bl.blob
            from checkpoint_blobs bl
            where bl.thread_id = checkpoints.thread_id
                and bl.checkpoint_ns = checkpoints.checkpoint_ns
                and bl.channel = v.key
                and bl.version = v.value
            limit 1
        ) as b
    ) as channel_values,
    (
        select array_agg(array[
            w.task_id::bytea, w.channel::bytea, w.type::bytea, w.blob, convert_to(w.task_path, 'UTF8'), w.idx::text::bytea
        ])
        from checkpoint_writes w
        where w.thread_id = checkpoints.thread_id
            and w.checkpoint_ns = checkpoints.checkpoint_ns
            and w.checkpoint_id = checkpoints.checkpoint_id
    ) as pending_writes
from checkpoints

-- name: delete_thread
-- Everything of a thread, in one statement.
with heads as (delete from checkpoints where thread_id = %(thread_id)s),
blobs as (delete from checkpoint_blobs where thread_id = %(thread_id)s)
delete from checkpoint_writes where thread_id = %(thread_id)s

-- name: copy_checkpoints
-- All of a thread under another id; what the other has already stays.
insert into checkpoints
    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
select %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
from checkpoints
where thread_id = %(source)s
on conflict (thread_id, checkpoint_ns, checkpoint_id) do nothing

-- name: copy_blobs
-- The values of a thread under another id.
insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
select %(target)s, checkpoint_ns, channel, version, type, blob
from checkpoint_blobs
where thread_id = %(source)s
on conflict (thread_id, checkpoint_ns, channel, version) do nothing

-- name: copy_writes
-- The pending writes of a thread under another id.
insert into checkpoint_writes
    (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
from checkpoint_writes
where thread_id = %(source)s
on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do nothing

-- name: threads_of_runs
-- The threads in which runs left checkpoints. Reads every checkpoint: whoever knows the thread does without.
select distinct thread_id from checkpoints where metadata ->> 'run_id' = any(%(run_ids)s)

-- name: restore_writes
-- What runs overwrote on checkpoints of other runs, as it was.
update checkpoint_writes w
set task_path = b.task_path, channel = b.channel, type = b.type, blob = b.blob
from checkpoint_write_before b
where b.thread_id = any(%(thread_uuids)s::uuid[])
    and b.run_id = any(%(run_uuids)s::uuid[])
    and b.channel is not null
    and w.thread_id = waystation_checkpoint_thread(b.tenant_id, b.thread_id)
    and w.checkpoint_ns = b.checkpoint_ns
    and w.checkpoint_id = b.checkpoint_id
    and w.task_id = b.task_id
    and w.idx = b.idx

-- name: remove_writes
-- What runs added on checkpoints of other runs.
delete from checkpoint_writes w
using checkpoint_write_before b
where b.thread_id = any(%(thread_uuids)s::uuid[])
    and b.run_id = any(%(run_uuids)s::uuid[])
    and b.channel is null
    and w.thread_id = waystation_checkpoint_thread(b.tenant_id, b.thread_id)
    and w.checkpoint_ns = b.checkpoint_ns
    and w.checkpoint_id = b.checkpoint_id
    and w.task_id = b.task_id
    and w.idx = b.idx

-- name: delete_for_runs
-- The checkpoints of runs, their pending writes, and the values that no other checkpoint has.
with doomed as (
    delete from checkpoints
    where thread_id = any(%(thread_ids)s) and metadata ->> 'run_id' = any(%(run_ids)s)
    returning thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' as versions
),
writes as (
    delete from checkpoint_writes w
    using doomed d
    where w.thread_id = d.thread_id and w.checkpoint_ns = d.checkpoint_ns and w.checkpoint_id = d.checkpoint_id
),
garbage as (
    select d.thread_id, d.checkpoint_ns, v.key, v.value
    from doomed d
    cross join lateral jsonb_each_text(case jsonb_typeof(d.versions) when 'object' then d.versions end) as v
    except
    -- All of the statement sees the tables as they were before it.
    select c.thread_id, c.checkpoint_ns, v.key, v.value
    from checkpoints c
    cross join lateral jsonb_each_text(
        case jsonb_typeof(c.checkpoint -> 'channel_versions') when 'object' then c.checkpoint -> 'channel_versions' end
    ) as v
    where c.thread_id = any(%(thread_ids)s)
        and (c.thread_id, c.checkpoint_ns, c.checkpoint_id)
            not in (select d.thread_id, d.checkpoint_ns, d.checkpoint_id from doomed d)
)
delete from checkpoint_blobs b
using garbage g
where b.thread_id = g.thread_id and b.checkpoint_ns = g.checkpoint_ns and b.channel = g.key and b.version = g.value

-- name: storage
-- What a thread holds: rows and bytes. A value that is stored inline counts once per version, as the others do.
with blob as (
    select channel, count(*) as versions, coalesce(sum(octet_length(blob)), 0) as bytes
    from checkpoint_blobs
    where thread_id = %(thread_id)s
    group by channel
),
inline_value as (
    select distinct on (c.checkpoint_ns, v.key, c.checkpoint -> 'channel_versions' ->> v.key)
        v.key as channel, octet_length(v.value::text) as bytes
    from checkpoints c
    cross join lateral jsonb_each(
        case jsonb_typeof(c.checkpoint -> 'channel_values') when 'object' then c.checkpoint -> 'channel_values' end
    ) as v
    where c.thread_id = %(thread_id)s
),
inline as (
    select channel, count(*) as versions, sum(bytes) as bytes from inline_value group by channel
),
channel as (
    select channel, sum(versions)::bigint as versions, sum(bytes)::bigint as bytes
    from (select * from blob union all select * from inline) as both_kinds
    group by channel
)
select
    (select count(*) from checkpoints where thread_id = %(thread_id)s),
    (
        select coalesce(sum(octet_length((case jsonb_typeof(checkpoint) when 'object' then checkpoint - 'channel_values' else checkpoint end)::text) + octet_length(metadata::text)), 0)::bigint
        from checkpoints
        where thread_id = %(thread_id)s
    ),
    (select count(*) from checkpoint_writes where thread_id = %(thread_id)s),
    (select coalesce(sum(octet_length(blob)), 0)::bigint from checkpoint_writes where thread_id = %(thread_id)s),
    (select coalesce(jsonb_object_agg(channel, jsonb_build_object('versions', versions, 'bytes', bytes)), '{}') from channel)
