-- Assistants as tools of other agents, and the threads that calls of them leave behind. `visible` is what a caller's
-- filter asks of the metadata; `defaults` are the assistants that graphs have from the start, which everybody may run.

-- name: tools_page
-- Assistants in the order of their ids, after one of them.
select a.assistant_id::text, a.graph_id, a.name, a.description
from assistant a
where a.tenant_id = %(tenant_id)s
  and (a.metadata @> %(visible)s::jsonb or a.assistant_id = any(%(defaults)s::uuid[]))
  and (%(after)s::uuid is null or a.assistant_id > %(after)s::uuid)
order by a.assistant_id
limit %(limit)s;

-- name: tools_between
-- Assistants with ids in a range, ends included: those whose id begins as a tool's name says.
select a.assistant_id::text, a.graph_id, a.name, a.description
from assistant a
where a.tenant_id = %(tenant_id)s
  and (a.metadata @> %(visible)s::jsonb or a.assistant_id = any(%(defaults)s::uuid[]))
  and a.assistant_id between %(first)s::uuid and %(last)s::uuid
order by a.assistant_id
limit 10;

-- name: hide_called
-- Hides the thread that a call made, unless it waits for an answer. Upkeep removes it soon after.
update thread
set hidden_at = clock_timestamp()
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and hidden_at is null
  and active_runs = 0 and status <> 'interrupted' and metadata @> '{"created_by": "mcp"}';
