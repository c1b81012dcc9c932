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
-- The newest runs of a graph that called models, and what each came to: the model calls, their tokens, the first call's
-- input, cost. Runs that go on are left out: they are not done spending.
select g.run_id, g.calls, g.cost, g.input_tokens, g.output_tokens, g.first_input, g.models
from (
    select l.run_id, count(*) filter (where l.bills)::int as calls, coalesce(sum(l.cost_nano_usd), 0)::bigint as cost,
           coalesce(sum((l.usage ->> 'input_tokens')::bigint) filter (where l.bills), 0)::bigint as input_tokens,
           coalesce(sum((l.usage ->> 'output_tokens')::bigint) filter (where l.bills), 0)::bigint as output_tokens,
           coalesce((array_agg((l.usage ->> 'input_tokens')::bigint order by l.created_at)
               filter (where l.bills and l.usage ? 'input_tokens'))[1], 0)::bigint as first_input,
           array_agg(distinct l.model) filter (where l.bills) as models, max(l.created_at) as ended
    from guard_ledger l
    where l.tenant_id = %(tenant_id)s and l.graph_id = %(graph_id)s and l.kind in ('model', 'correction')
      and l.created_at > clock_timestamp() - make_interval(secs => %(within_s)s) and l.run_id <> ''
    group by l.thread_id, l.run_id
) g
where g.calls > 0
  and not exists (
      select from run r
      where r.tenant_id = %(tenant_id)s and r.run_id::text = g.run_id and r.status in ('pending', 'running')
  )
order by g.ended desc
limit %(limit)s;
