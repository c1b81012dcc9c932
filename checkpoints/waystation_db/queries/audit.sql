-- The audit log. Records are written by one function, which the writers of all processes enter in turn, tenant by tenant.

-- name: append_entries
-- Puts entries at the end of a tenant's chain; answers the number of the last one.
select waystation_audit_append(%(tenant_id)s, %(entries)s::text[]);

-- name: read_page
-- A page of a tenant's chain, in order. `family` is what actions begin with.
select seq, at, entry::text, prev, hash
from audit_record
where tenant_id = %(tenant_id)s
  and seq > %(after)s
  and (%(action)s::text is null or action = %(action)s)
  and (%(family)s::text is null or starts_with(action, %(family)s))
order by seq
limit %(limit)s;

-- name: get_head
-- Where a tenant's chain ends. No row: nothing was ever written.
select seq, hash from audit_head where tenant_id = %(tenant_id)s;

-- name: list_tenants
-- The tenants that have a chain, also those whose head somebody removed.
select tenant_id from audit_head
union
select distinct tenant_id from audit_record
order by tenant_id;

-- name: get_anchor
-- What was removed last of a tenant's chain. No row: nothing ever was.
select seq, hash, removed, at, made_by
from audit_anchor
where tenant_id = %(tenant_id)s
order by seq desc
limit 1;

-- name: find_prefix
-- The last record of those from the chain's beginning that are all older than `before`, at most `most` of them, and
-- whether there is more among them than notes of earlier prunes. Records come in the order of their times.
with first as (
    select seq from audit_record where tenant_id = %(tenant_id)s order by seq limit 1
), kept as (
    select seq from audit_record where tenant_id = %(tenant_id)s and at >= %(before)s order by seq limit 1
)
select r.seq, r.hash, exists (
    select from audit_record o
    where o.tenant_id = %(tenant_id)s and o.seq <= r.seq and o.action is distinct from 'audit.pruned')
from audit_record r
where r.tenant_id = %(tenant_id)s
  and r.seq < coalesce((select seq from kept), 9223372036854775807)
  and r.seq - (select seq from first) < %(most)s
order by r.seq desc
limit 1;

-- name: list_due
-- The tenants whose oldest record is older than `before`.
select h.tenant_id
from audit_head h
cross join lateral (
    select r.at from audit_record r where r.tenant_id = h.tenant_id order by r.seq limit 1
) oldest
where oldest.at < %(before)s
order by h.tenant_id;

-- name: days_ago
-- The midnight, in UTC, that is so many days before today's: a chain is cut once a day at most.
select date_trunc('day', now(), 'UTC') - make_interval(days => %(days)s);

-- name: prune
-- Removes a verified beginning of a chain and leaves an anchor; null where somebody else was first.
select waystation_audit_prune(
    %(tenant_id)s, %(since)s, %(upto)s, %(hash)s, %(made_by)s, %(note)s);

-- name: no_limits
-- For a prune of a long log, in its transaction.
set local statement_timeout = 0;
