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
