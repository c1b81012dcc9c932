-- The guards' cache without a Redis (0041_guard_state): values that may be forgotten, and who computes a missing one.

-- name: get
-- A value that has not expired.
select "value"
from guard_cache
where tenant_id = %(tenant_id)s and key = %(key)s and expires_at > clock_timestamp();

-- name: put
-- Keeps a value.
insert into guard_cache (tenant_id, key, "value", expires_at)
values (%(tenant_id)s, %(key)s, %(value)s, clock_timestamp() + make_interval(secs => %(ttl_s)s))
on conflict (tenant_id, key) do update
set "value" = excluded."value", expires_at = excluded.expires_at;

-- name: lock
-- Becomes, or stays, the one who computes a value. No row: another is.
insert into guard_lock as l (tenant_id, key, holder, expires_at)
values (%(tenant_id)s, %(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(ttl_s)s))
on conflict (tenant_id, key) do update
set holder = excluded.holder, expires_at = excluded.expires_at
where l.expires_at <= clock_timestamp() or l.holder = excluded.holder
returning holder;

-- name: unlock
-- Gives the lock back, if it is this holder's.
delete from guard_lock
where tenant_id = %(tenant_id)s and key = %(key)s and holder = %(holder)s;
