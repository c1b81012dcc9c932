-- The guards' ledger for those who look: pages, sums, and what runs of a graph came to.

-- name: entries_page
-- A page of a tenant's entries, the newest first, each as JSON.
select json_build_object(
    'call', l.call_id, 'kind', l.kind, 'thread_id', l.thread_id, 'run_id', l.run_id, 'attempt', l.attempt, 'node', l.node,
    'assistant_id', l.assistant_id, 'graph_id', l.graph_id, 'user', l.user_id, 'key', l.key_id, 'model', l.model,
    'usage', l.usage, 'cost_nano_usd', l.cost_nano_usd, 'price_version', l.price_version, 'detail', l.detail,
    'created_at', waystation_time(l.created_at))::text
from guard_ledger l
where l.tenant_id = %(tenant_id)s
  -- What says that something was told or tested is no entry about money.
  and not (l.kind = 'correction' and (l.detail ? 'alert' or l.detail ? 'self_test'))
  and (%(thread_id)s::text is null or l.thread_id = %(thread_id)s)
  and (%(run_id)s::text is null or l.run_id = %(run_id)s)
  and (%(graph_id)s::text is null or l.graph_id = %(graph_id)s)
  and (%(user)s::text is null or l.user_id = %(user)s)
  and (%(kind)s::text is null or l.kind = %(kind)s)
  and l.created_at >= coalesce(%(since)s::timestamptz, '-infinity')
  and l.created_at < coalesce(%(until)s::timestamptz, 'infinity')
order by l.created_at desc, l.call desc
limit %(limit)s offset %(offset)s;

-- name: totals
-- What all entries of the same choice come to, by model; tools and corrections stand under their names.
select l.kind, l.model, count(distinct l.call_id)::int, coalesce(sum(l.cost_nano_usd), 0)::bigint,
       coalesce(sum((l.usage ->> 'input_tokens')::bigint) filter (where l.bills), 0)::bigint,
       coalesce(sum((l.usage ->> 'output_tokens')::bigint) filter (where l.bills), 0)::bigint,
       count(*) filter (where l.bills and l.detail ? 'unpriced')::int
from guard_ledger l
where l.tenant_id = %(tenant_id)s
  -- What says that something was told or tested is no entry about money.
  and not (l.kind = 'correction' and (l.detail ? 'alert' or l.detail ? 'self_test'))
  and (%(thread_id)s::text is null or l.thread_id = %(thread_id)s)
  and (%(run_id)s::text is null or l.run_id = %(run_id)s)
  and (%(graph_id)s::text is null or l.graph_id = %(graph_id)s)
  and (%(user)s::text is null or l.user_id = %(user)s)
  and (%(kind)s::text is null or l.kind = %(kind)s)
  and l.created_at >= coalesce(%(since)s::timestamptz, '-infinity')
  and l.created_at < coalesce(%(until)s::timestamptz, 'infinity')
group by l.kind, l.model
order by 4 desc, l.kind, l.model
limit 1000;

-- name: runs_of_graph
-- The newest runs of a graph that called models, the newest first: their model calls in order as [model, provider, input
-- tokens, output tokens, cost, milliseconds], how many tools they called, and what they were asked where that is there
-- and plain. Runs that go on are left out: they are not done spending.
select g.calls, g.tools, r.kwargs -> 'input'
from (
    select l.tenant_id, l.thread_id, l.run_id, max(l.created_at) as ended,
           count(*) filter (where l.kind = 'tool' and l.bills)::int as tools,
           jsonb_agg(jsonb_build_array(
               l.model, coalesce(l.detail ->> 'provider', ''), coalesce((l.usage ->> 'input_tokens')::bigint, 0),
               coalesce((l.usage ->> 'output_tokens')::bigint, 0), l.cost_nano_usd,
               coalesce((l.detail ->> 'milliseconds')::float8::bigint, 0)) order by l.created_at)
               filter (where l.kind = 'model' and l.bills) as calls
    from guard_ledger l
    where l.tenant_id = %(tenant_id)s and l.graph_id = %(graph_id)s and l.run_id <> ''
      and l.created_at > clock_timestamp() - make_interval(secs => %(within_s)s)
    group by l.tenant_id, l.thread_id, l.run_id
) g
left join run r on r.tenant_id = g.tenant_id and r.thread_id::text = g.thread_id and r.run_id::text = g.run_id
where g.calls is not null and coalesce(r.status not in ('pending', 'running'), true)
order by g.ended desc
limit %(limit)s;
