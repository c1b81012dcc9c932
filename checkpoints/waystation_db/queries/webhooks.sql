-- Webhook deliveries: the outbox that the end of a run fills (0021_webhook). A transition names the attempt that it leaves.

-- name: claim_deliveries
-- Up to `limit` deliveries that are due become this process's for `lease_s` seconds. Those to the hosts in `busy` wait, and
-- those to the server itself (a path) are for processes that know where that is.
with due as (
    select tenant_id, delivery_id
    from webhook_delivery
    where status = 'pending' and due_at <= clock_timestamp()
      and (%(relative)s or left(url, 1) <> '/')
      and not (coalesce(substring(url from '^[a-zA-Z]+://([^/?#]*)'), '') = any(%(busy)s::text[]))
    order by due_at
    limit %(limit)s
    for no key update skip locked
)
update webhook_delivery d
set attempt = d.attempt + 1,
    tries = d.tries + 1,
    due_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    updated_at = clock_timestamp()
from due
where d.tenant_id = due.tenant_id and d.delivery_id = due.delivery_id and d.status = 'pending'
returning d.tenant_id, d.delivery_id::text, d.thread_id::text, d.run_id::text, d.url, d.attempt, d.tries, d.payload::text,
          waystation_time(clock_timestamp()), extract(epoch from clock_timestamp())::bigint;

-- name: settle_delivered
-- The receiver has taken it.
update webhook_delivery
set status = 'delivered', response_status = %(response_status)s, error = null, ended_at = clock_timestamp(),
    updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and delivery_id = %(delivery_id)s and status = 'pending' and attempt = %(attempt)s
returning status;

-- name: settle_failed
-- It was not taken: again after `delay_s`, or spent when there is none.
update webhook_delivery
set status = case when %(delay_s)s::float8 is null then 'spent' else 'pending' end,
    due_at = case when %(delay_s)s::float8 is null then due_at
                  else clock_timestamp() + make_interval(secs => %(delay_s)s::float8) end,
    ended_at = case when %(delay_s)s::float8 is null then clock_timestamp() end,
    response_status = %(response_status)s,
    error = %(error)s,
    updated_at = clock_timestamp()
where tenant_id = %(tenant_id)s and delivery_id = %(delivery_id)s and status = 'pending' and attempt = %(attempt)s
returning status;

-- name: get_delivery
-- One delivery.
select waystation_webhook_delivery(d)::text
from webhook_delivery d
where d.tenant_id = %(tenant_id)s and d.delivery_id = %(delivery_id)s and d.metadata @> %(visible)s::jsonb;

-- name: list_deliveries
-- A page of deliveries, the newest first.
select waystation_webhook_delivery(d)::text
from webhook_delivery d
where d.tenant_id = %(tenant_id)s and d.metadata @> %(visible)s::jsonb
  and (%(status)s::text is null or d.status = %(status)s)
  and (%(thread_id)s::uuid is null or d.thread_id = %(thread_id)s)
  and (%(run_id)s::uuid is null or d.run_id = %(run_id)s)
order by d.created_at desc, d.delivery_id desc
limit %(limit)s offset %(offset)s;

-- name: replay_delivery
-- Sends a delivery again, as if it had never been tried. One that waits is sent now.
update webhook_delivery d
set status = 'pending', tries = 0, due_at = clock_timestamp(), ended_at = null, updated_at = clock_timestamp()
where d.tenant_id = %(tenant_id)s and d.delivery_id = %(delivery_id)s and d.metadata @> %(visible)s::jsonb
returning waystation_webhook_delivery(d)::text, pg_notify('ws_webhook', '')::text;

-- name: replay_spent
-- Sends again whatever is spent, the oldest first.
with spent as (
    select tenant_id, delivery_id
    from webhook_delivery
    where tenant_id = %(tenant_id)s and status = 'spent'
    order by created_at
    limit %(limit)s
    for no key update skip locked
)
update webhook_delivery d
set status = 'pending', tries = 0, due_at = clock_timestamp(), ended_at = null, updated_at = clock_timestamp()
from spent
where d.tenant_id = spent.tenant_id and d.delivery_id = spent.delivery_id
returning d.delivery_id::text, pg_notify('ws_webhook', '')::text;

-- name: prune_deliveries
-- Forgets deliveries that ended long ago: those that were taken after a day.
with old as (
    select tenant_id, delivery_id
    from webhook_delivery
    where ended_at < clock_timestamp() - make_interval(secs => %(spent_s)s)
       or (status = 'delivered' and ended_at < clock_timestamp() - make_interval(secs => %(delivered_s)s))
    limit %(limit)s
    for update skip locked
)
delete from webhook_delivery d
using old
where d.tenant_id = old.tenant_id and d.delivery_id = old.delivery_id
returning d.delivery_id;
