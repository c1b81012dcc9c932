-- Encryption at rest: which keys a database was written with, and the rewriting of rows under another key. A page of rows
-- comes in the order of the table's key, behind the key `after` (null: from the beginning), of one thread or of all; a row
-- is replaced only if it still is what was read.

-- name: known_keys
-- The keys that values of this database were sealed with.
select key_id from encryption_key order by first_used_at, key_id;

-- name: remember_key
-- Notes that a key is in use from now on.
insert into encryption_key (key_id) values (%(key_id)s) on conflict do nothing;

-- name: forget_keys
-- Drops the keys that nothing is sealed with any more.
delete from encryption_key where key_id <> %(key_id)s;

-- name: may_seal_assistants
-- Whether the migration was applied that waits for the last process that would not read sealed assistants.
select exists (select from waystation_migration where name = %(switch)s);

-- name: page_blobs
-- Values of channels.
select array[thread_id, checkpoint_ns, channel, version], type, blob
from checkpoint_blobs
where blob is not null
  and (%(thread_id)s::text is null or thread_id = %(thread_id)s)
  and (%(after)s::text[] is null or (thread_id, checkpoint_ns, channel, version)
      > ((%(after)s::text[])[1], (%(after)s::text[])[2], (%(after)s::text[])[3], (%(after)s::text[])[4]))
order by thread_id, checkpoint_ns, channel, version
limit %(limit)s;

-- name: replace_blob
-- A channel's value, sealed anew.
update checkpoint_blobs
set type = %(new_type)s, blob = %(new)s
where thread_id = (%(key)s::text[])[1] and checkpoint_ns = (%(key)s::text[])[2] and channel = (%(key)s::text[])[3]
  and version = (%(key)s::text[])[4] and type = %(old_type)s and blob = %(old)s;

-- name: page_writes
-- Pending writes.
select array[thread_id, checkpoint_ns, checkpoint_id, task_id, idx::text, channel], type, blob
from checkpoint_writes
where (%(thread_id)s::text is null or thread_id = %(thread_id)s)
  and (%(after)s::text[] is null or (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
      > ((%(after)s::text[])[1], (%(after)s::text[])[2], (%(after)s::text[])[3], (%(after)s::text[])[4],
         ((%(after)s::text[])[5])::int))
order by thread_id, checkpoint_ns, checkpoint_id, task_id, idx
limit %(limit)s;

-- name: replace_write
-- A pending write, sealed anew.
update checkpoint_writes
set type = %(new_type)s, blob = %(new)s
where thread_id = (%(key)s::text[])[1] and checkpoint_ns = (%(key)s::text[])[2] and checkpoint_id = (%(key)s::text[])[3]
  and task_id = (%(key)s::text[])[4] and idx = ((%(key)s::text[])[5])::int
  and type = %(old_type)s and blob = %(old)s;

-- name: page_writes_before
-- What runs overwrote on checkpoints of other runs. The run's id comes last: it is no part of what the value is bound to.
select array[thread_id::text, checkpoint_ns, checkpoint_id, task_id, idx::text, channel, run_id::text, tenant_id],
       type, blob
from checkpoint_write_before
where blob is not null
  and (%(thread_id)s::text is null or thread_id::text = %(thread_id)s)
  and (%(after)s::text[] is null or (thread_id, run_id, tenant_id, checkpoint_ns, checkpoint_id, task_id, idx)
      > (((%(after)s::text[])[1])::uuid, ((%(after)s::text[])[7])::uuid, (%(after)s::text[])[8], (%(after)s::text[])[2],
         (%(after)s::text[])[3], (%(after)s::text[])[4], ((%(after)s::text[])[5])::int))
order by thread_id, run_id, tenant_id, checkpoint_ns, checkpoint_id, task_id, idx
limit %(limit)s;

-- name: replace_write_before
-- What a run overwrote, sealed anew.
update checkpoint_write_before
set type = %(new_type)s, blob = %(new)s
where thread_id = ((%(key)s::text[])[1])::uuid and run_id = ((%(key)s::text[])[7])::uuid
  and tenant_id = (%(key)s::text[])[8] and checkpoint_ns = (%(key)s::text[])[2]
  and checkpoint_id = (%(key)s::text[])[3] and task_id = (%(key)s::text[])[4] and idx = ((%(key)s::text[])[5])::int
  and type = %(old_type)s and blob = %(old)s;

-- name: page_checkpoints
-- The values inside checkpoints, and their metadata. Behind the key stand the members of metadata that may be searched: those
-- of the run that made the checkpoint. The others come from its config and context.
with page as (
    select c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.checkpoint, c.metadata,
           case when length(c.thread_id) > 37 then left(c.thread_id, -37) else 'default' end as tenant_id,
           substring(c.thread_id from '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')::uuid as thread,
           substring(c.metadata ->> 'run_id'
               from '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')::uuid as run_id
    from checkpoints c
    where (%(thread_id)s::text is null or c.thread_id = %(thread_id)s)
      and (%(after)s::text[] is null or (c.thread_id, c.checkpoint_ns, c.checkpoint_id)
          > ((%(after)s::text[])[1], (%(after)s::text[])[2], (%(after)s::text[])[3]))
    order by c.thread_id, c.checkpoint_ns, c.checkpoint_id
    limit %(limit)s
)
select array[p.thread_id, p.checkpoint_ns, p.checkpoint_id]
           || coalesce((select array_agg(member) from jsonb_object_keys(r.metadata) as member), '{}'),
       p.checkpoint::text, p.metadata::text
from page p
left join run r on r.tenant_id = p.tenant_id and r.thread_id = p.thread and r.run_id = p.run_id
order by p.thread_id, p.checkpoint_ns, p.checkpoint_id;

-- name: replace_checkpoint
-- A checkpoint, sealed anew.
update checkpoints
set checkpoint = (%(new)s::text[])[1]::jsonb, metadata = (%(new)s::text[])[2]::jsonb
where thread_id = (%(key)s::text[])[1] and checkpoint_ns = (%(key)s::text[])[2] and checkpoint_id = (%(key)s::text[])[3]
  and checkpoint::text = (%(old)s::text[])[1] and metadata::text = (%(old)s::text[])[2];

-- name: page_threads
-- What threads show of their state.
select array[tenant_id, thread_id::text], "values"::text, interrupts::text, error::text, metadata::text, config::text
from thread
where (%(thread_id)s::text is null or thread_id::text = %(thread_id)s)
  and (%(after)s::text[] is null or (tenant_id, thread_id)
      > ((%(after)s::text[])[1], ((%(after)s::text[])[2])::uuid))
order by tenant_id, thread_id
limit %(limit)s;

-- name: replace_thread
-- A thread's face, sealed anew. Nobody sees a change of the thread.
update thread
set "values" = (%(new)s::text[])[1]::jsonb, interrupts = (%(new)s::text[])[2]::jsonb,
    error = (%(new)s::text[])[3]::jsonb, metadata = (%(new)s::text[])[4]::jsonb, config = (%(new)s::text[])[5]::jsonb
where tenant_id = (%(key)s::text[])[1] and thread_id = ((%(key)s::text[])[2])::uuid
  and array["values"::text, interrupts::text, error::text, metadata::text, config::text]
      is not distinct from %(old)s::text[];

-- name: page_runs
-- What runs were asked for, and what became of them. The assistant's id is no part of the key.
select array[tenant_id, thread_id::text, run_id::text, assistant_id::text],
       kwargs::text, error::text, metadata::text, event_asked::text, assistant_config::text, assistant_context::text
from run
where (%(thread_id)s::text is null or thread_id::text = %(thread_id)s)
  and (%(after)s::text[] is null or (tenant_id, thread_id, run_id)
      > ((%(after)s::text[])[1], ((%(after)s::text[])[2])::uuid, ((%(after)s::text[])[3])::uuid))
order by tenant_id, thread_id, run_id
limit %(limit)s;

-- name: replace_run
-- A run, sealed anew. Nobody sees a change of the run.
update run
set kwargs = (%(new)s::text[])[1]::json, error = (%(new)s::text[])[2]::jsonb, metadata = (%(new)s::text[])[3]::jsonb,
    event_asked = (%(new)s::text[])[4]::jsonb, assistant_config = (%(new)s::text[])[5]::jsonb,
    assistant_context = (%(new)s::text[])[6]::jsonb
where tenant_id = (%(key)s::text[])[1] and thread_id = ((%(key)s::text[])[2])::uuid
  and run_id = ((%(key)s::text[])[3])::uuid
  and array[kwargs::text, error::text, metadata::text, event_asked::text, assistant_config::text,
            assistant_context::text] is not distinct from %(old)s::text[];

-- name: page_assistants
-- What assistants are configured with.
select array[tenant_id, assistant_id::text], config::text, context::text, metadata::text
from assistant
where (%(thread_id)s::text is null)
  and (%(after)s::text[] is null
       or (tenant_id, assistant_id) > ((%(after)s::text[])[1], ((%(after)s::text[])[2])::uuid))
order by tenant_id, assistant_id
limit %(limit)s;

-- name: replace_assistant
-- An assistant, sealed anew; it is no new version.
update assistant
set config = (%(new)s::text[])[1]::jsonb, context = (%(new)s::text[])[2]::jsonb, metadata = (%(new)s::text[])[3]::jsonb
where tenant_id = (%(key)s::text[])[1] and assistant_id = ((%(key)s::text[])[2])::uuid
  and array[config::text, context::text, metadata::text] is not distinct from %(old)s::text[];

-- name: page_versions
-- What assistants were configured with.
select array[tenant_id, assistant_id::text, version::text], config::text, context::text, metadata::text
from assistant_version
where (%(thread_id)s::text is null)
  and (%(after)s::text[] is null
       or (tenant_id, assistant_id, version)
          > ((%(after)s::text[])[1], ((%(after)s::text[])[2])::uuid, ((%(after)s::text[])[3])::integer))
order by tenant_id, assistant_id, version
limit %(limit)s;

-- name: replace_version
-- A version of an assistant, sealed anew.
update assistant_version
set config = (%(new)s::text[])[1]::jsonb, context = (%(new)s::text[])[2]::jsonb, metadata = (%(new)s::text[])[3]::jsonb
where tenant_id = (%(key)s::text[])[1] and assistant_id = ((%(key)s::text[])[2])::uuid
  and version = ((%(key)s::text[])[3])::integer
  and array[config::text, context::text, metadata::text] is not distinct from %(old)s::text[];

-- name: page_store
-- Items of the store.
select array[prefix, key], value::text
from store
where (%(thread_id)s::text is null)
  and (%(after)s::text[] is null or (prefix, key) > ((%(after)s::text[])[1], (%(after)s::text[])[2]))
order by prefix, key
limit %(limit)s;

-- name: replace_store
-- An item of the store, sealed anew; it stays as old as it was.
update store
set value = (%(new)s::text[])[1]::jsonb
where prefix = (%(key)s::text[])[1] and key = (%(key)s::text[])[2] and value::text = (%(old)s::text[])[1];

-- name: page_crons
-- What crons ask for, and for whom.
select array[tenant_id, cron_id::text], payload::text, owner::text, metadata::text
from cron
where (%(thread_id)s::text is null)
  and (%(after)s::text[] is null or (tenant_id, cron_id) > ((%(after)s::text[])[1], ((%(after)s::text[])[2])::uuid))
order by tenant_id, cron_id
limit %(limit)s;

-- name: replace_cron
-- A cron, sealed anew. Nobody sees a change of the cron.
update cron
set payload = (%(new)s::text[])[1]::json, owner = (%(new)s::text[])[2]::json, metadata = (%(new)s::text[])[3]::jsonb
where tenant_id = (%(key)s::text[])[1] and cron_id = ((%(key)s::text[])[2])::uuid
  and array[payload::text, owner::text, metadata::text] is not distinct from %(old)s::text[];

-- name: page_deliveries
-- What webhooks are to tell.
select array[tenant_id, delivery_id::text, thread_id::text, run_id::text], payload::text, metadata::text
from webhook_delivery
where (%(thread_id)s::text is null)
  and (%(after)s::text[] is null
       or (tenant_id, delivery_id) > ((%(after)s::text[])[1], ((%(after)s::text[])[2])::uuid))
order by tenant_id, delivery_id
limit %(limit)s;

-- name: replace_delivery
-- A delivery's body, sealed anew.
update webhook_delivery
set payload = (%(new)s::text[])[1]::json, metadata = (%(new)s::text[])[2]::jsonb
where tenant_id = (%(key)s::text[])[1] and delivery_id = ((%(key)s::text[])[2])::uuid
  and array[payload::text, metadata::text] is not distinct from %(old)s::text[];
