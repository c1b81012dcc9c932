-- The guards' ledger (0040_guard_ledger). All changes go through one function: it locks every account in one order.

-- name: work
-- Reserves, settlements and releases, each with its answer, in one transaction.
select waystation_guard_work(%(ops)s::jsonb)::text;

-- name: balances
-- What is spent and held, in the order asked. Holds that nobody will settle do not count, whether they were swept or not.
select coalesce(a.spent, 0), coalesce(a.held - o.amount, 0)::bigint, coalesce(a.at_risk - o.worst, 0)::bigint
from unnest(%(tenant_ids)s::text[], %(account_ids)s::uuid[]) with ordinality as u (tenant_id, account_id, n)
left join guard_account a on a.tenant_id is not distinct from u.tenant_id and a.account_id = u.account_id
left join lateral (
    select coalesce(sum(h.amount), 0) as amount, coalesce(sum(h.worst), 0) as worst
    from guard_hold h
    left join run r
      on r.tenant_id = h.tenant_id and r.thread_id = case when h.of_run then h.thread_id::uuid end
     and r.run_id = case when h.of_run then h.run_id::uuid end and r.status = 'running' and r.attempt = h.attempt
    where h.tenant_id is not distinct from a.tenant_id and h.account_id = a.account_id
      and (h.expires_at <= clock_timestamp() or (h.of_run and r.run_id is null))
) o on true
order by u.n;

-- name: clock
-- The database's clock.
select clock_timestamp();

-- name: ratio
-- What is learned of a model's actual to estimated cost. No row: nothing yet.
select ratio
from guard_ratio
where tenant_id = %(tenant_id)s and model = %(model)s;

-- name: sweep
-- Gives back holds of dead attempts and of calls that never came back.
select waystation_sweep_holds(%(limit)s::integer);

-- name: prune_accounts
-- Forgets the balances of windows and runs that ended long ago. What they were made of stays in the ledger.
with old as (
    select tenant_id, account_id
    from guard_account
    where created_at < clock_timestamp() - make_interval(secs => %(kept_s)s)
      and ("window" <> '' or scope = 'run' or scope like 'run/%%')
      and held = 0 and at_risk = 0
    limit %(limit)s
    for update skip locked
)
delete from guard_account a
using old
where a.tenant_id = old.tenant_id and a.account_id = old.account_id and a.held = 0 and a.at_risk = 0
returning a.account_id;

-- name: entries
-- A page of the ledger behind (`after_time`, `after_call`), the oldest first, each as JSON. What says that something was
-- told or tested is no entry about money, and there only with `all`.
select l.created_at, l.call, json_build_object(
    'call', l.call, 'kind', l.kind, 'thread_id', l.thread_id, 'run_id', l.run_id, 'attempt', l.attempt, 'node', l.node,
    'namespace', l.namespace, 'assistant_id', l.assistant_id, 'graph_id', l.graph_id, 'user', l.user_id, 'key', l.key_id,
    'model', l.model, 'usage', l.usage, 'cost_nano_usd', l.cost_nano_usd, 'estimate_nano_usd', l.estimate_nano_usd,
    'price_version', l.price_version, 'spent', l.spent, 'detail', l.detail, 'created_at', waystation_time(l.created_at))::text
from guard_ledger l
where l.tenant_id = %(tenant_id)s
  and (%(all)s or not (l.kind = 'correction' and (l.detail ? 'alert' or l.detail ? 'self_test')))
  and (l.created_at, l.call) > (%(after_time)s::timestamptz, %(after_call)s::text)
  and l.created_at < coalesce(%(until)s::timestamptz, 'infinity')
order by l.created_at, l.call
limit %(limit)s;

-- name: model_entries
-- A page of the entries of model calls behind (`after_time`, `after_call`), the oldest first, each with what corrections
-- have added to it until now.
select l.created_at, l.call, l.call_id, l.bills, l.model, coalesce(l.detail ->> 'provider', ''), l.usage, l.cost_nano_usd,
       l.price_version, l.spent, l.thread_id, l.run_id, l.attempt, l.node, l.namespace, l.assistant_id, l.graph_id, l.user_id,
       l.key_id,
       (
           select coalesce(jsonb_agg(jsonb_build_array(c.cost_nano_usd, c.spent)), '[]')
           from guard_ledger c
           where c.tenant_id = l.tenant_id and c.call_id = l.call_id and c.kind = 'correction'
             and c.detail ->> 'corrects' = l.call
       )
from guard_ledger l
where l.tenant_id = %(tenant_id)s and l.kind = 'model'
  and (l.created_at, l.call) > (%(after_time)s::timestamptz, %(after_call)s::text)
  and l.created_at < coalesce(%(until)s::timestamptz, 'infinity')
order by l.created_at, l.call
limit %(limit)s;

-- name: drift
-- Accounts whose balance is not the sum of the ledger's entries and of the open holds, and by how much. Entries, holds and
-- balances change in one transaction, so each snapshot has to agree with itself; nothing needs to be locked.
with entered as (
    select (x ->> 0)::uuid as account_id, x ->> 1 as scope, x ->> 2 as owner, x ->> 3 as unit, x ->> 4 as "window",
           sum((x ->> 5)::numeric) as spent
    from guard_ledger l, jsonb_array_elements(l.spent) x
    where l.tenant_id = %(tenant_id)s
    group by 1, 2, 3, 4, 5
), open_holds as (
    select account_id, sum(amount) as held, sum(worst) as at_risk
    from guard_hold
    where tenant_id = %(tenant_id)s
    group by account_id
), kept as (
    select account_id, scope, owner, unit, "window", spent, held, at_risk
    from guard_account
    where tenant_id = %(tenant_id)s
), compared as (
    select account_id, coalesce(k.scope, e.scope) as scope, coalesce(k.owner, e.owner) as owner,
           coalesce(k.unit, e.unit) as unit, coalesce(k."window", e."window") as "window",
           coalesce(e.spent, 0) - coalesce(k.spent, 0) as spent,
           coalesce(h.held, 0) - coalesce(k.held, 0) as held,
           coalesce(h.at_risk, 0) - coalesce(k.at_risk, 0) as at_risk
    from kept k
    full join entered e using (account_id)
    full join open_holds h using (account_id)
)
select account_id::text, scope, owner, unit, "window", spent::bigint, held::bigint, at_risk::bigint
from compared
where (spent <> 0 or held <> 0 or at_risk <> 0) and scope is not null
order by scope, owner, unit, "window";

-- name: restore_account
-- An account that was forgotten, with nothing on it.
insert into guard_account (tenant_id, account_id, scope, owner, unit, "window")
values (%(tenant_id)s, %(account_id)s, %(scope)s, %(owner)s, %(unit)s, %(window)s)
on conflict do nothing;

-- name: mend
-- Adds what an account's balance lacks.
update guard_account
set spent = spent + %(spent)s, held = held + %(held)s, at_risk = at_risk + %(at_risk)s
where tenant_id = %(tenant_id)s and account_id = %(account_id)s;

-- name: of_call
-- The entries about a call, the oldest first: call, kind, cost, spent, detail, whose it was.
select l.call, l.kind, l.cost_nano_usd, l.model, l.spent, l.detail, l.thread_id, l.run_id, l.attempt, l.node, l.graph_id,
       l.user_id, l.key_id
from guard_ledger l
where l.tenant_id = %(tenant_id)s and l.call_id = %(call_id)s
order by l.created_at, l.call;
