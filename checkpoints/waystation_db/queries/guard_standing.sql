-- How budgets stand, and what is told of them.

-- name: standing
-- Accounts of a tenant and what is spent and held on them. Holds that nobody will settle do not count.
select a.scope, a.owner, a.unit, a."window", a.spent, (a.held - o.amount)::bigint, (a.at_risk - o.worst)::bigint
from guard_account a
cross join lateral (
    select coalesce(sum(h.amount), 0) as amount, coalesce(sum(h.worst), 0) as worst
    from guard_hold h
    where h.tenant_id = a.tenant_id and h.account_id = a.account_id and waystation_hold_is_over(h)
) o
where a.tenant_id = %(tenant_id)s and a.scope <> 'self-test'
  and (%(scope)s::text is null or split_part(a.scope, '/', 1) = %(scope)s)
  and (%(owner)s::text is null or a.owner = %(owner)s)
  and (%(windows)s::text[] is null or a."window" = any(%(windows)s::text[]))
order by a.scope, a.unit, a."window" desc, a.spent desc, a.owner
limit %(limit)s offset %(offset)s;

-- name: totals
-- What is spent and held on accounts of some tenants, over all owners, in these windows; and the most of one owner. For
-- metrics: the scopes are those of limits on many runs, whose accounts are few.
select a.tenant_id, a.scope, a.unit, a."window", sum(a.spent)::float8, sum(a.held)::float8,
       max(a.spent::float8 + a.held::float8)
from guard_account a
where a.tenant_id = any(%(tenants)s::text[]) and a.scope = any(%(scopes)s::text[])
  and a."window" = any(%(windows)s::text[])
group by a.tenant_id, a.scope, a.unit, a."window";

-- name: queue_alert
-- Puts an alert into the outbox of webhooks, as the end of a run does (0021). No row: the run is not there any more.
insert into webhook_delivery (tenant_id, delivery_id, thread_id, run_id, url, metadata, payload)
select r.tenant_id, gen_random_uuid(), r.thread_id, r.run_id, %(url)s, t.metadata, %(payload)s::json
from run r
join thread t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id
where r.tenant_id = %(tenant_id)s and r.thread_id = %(thread_id)s and r.run_id = %(run_id)s
returning delivery_id::text, pg_notify('ws_webhook', '')::text;
