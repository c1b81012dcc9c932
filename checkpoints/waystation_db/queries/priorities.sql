-- The priority of a thread, which a project's own function decides once.

-- name: of_thread
-- What the function is told, and what it said before. No row: no such assistant. Without a thread its columns are null.
select a.graph_id, a.metadata, t.thread_id is not null, t.metadata, t.priority
from assistant a
left join thread t on t.tenant_id = a.tenant_id and t.thread_id = %(thread_id)s and t.hidden_at is null
where a.tenant_id = %(tenant_id)s and a.assistant_id = %(assistant_id)s;

-- name: keep
-- Keeps an answer with the thread; the first one stays. Returns the one that holds. No row: no such thread.
update thread
set priority = coalesce(priority, %(priority)s)
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
returning priority;
