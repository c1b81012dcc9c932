-- Runs as tasks of an agent-to-agent client. A task is a run and those that go on with it: they name it in
-- `metadata.a2a_task_id`. `visible` is what a caller's filter asks of the thread's metadata.

-- name: task
-- A task by its first run: what its latest run came to, whether the thread has moved on since, and the thread's face.
select r.run_id::text, r.assistant_id::text, r.status, r.error, r.resumable, r.updated_at,
       not exists (
           select from run later
           where later.tenant_id = r.tenant_id and later.thread_id = r.thread_id
             and (later.created_at, later.run_id) > (r.created_at, r.run_id)
       ) as is_last,
       t."values"::text, t.interrupts
from thread t
join run r on r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
where t.tenant_id = %(tenant_id)s and t.thread_id = %(thread_id)s and t.hidden_at is null
  and t.metadata @> %(visible)s::jsonb
  and (r.run_id = %(run_id)s or r.metadata ->> 'a2a_task_id' = %(run_id)s::text)
order by r.created_at desc, r.run_id desc
limit 1;

-- name: task_messages
-- Which message of a client began which task of a thread, the oldest first.
select metadata ->> 'a2a_message_id', coalesce(metadata ->> 'a2a_task_id', run_id::text)
from run
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and metadata ? 'a2a_message_id'
order by created_at, run_id;
