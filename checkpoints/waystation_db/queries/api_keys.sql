-- API keys. What is stored of one does not suffice to present it.

-- name: create_key
-- Keeps a new key.
insert into api_key (key_id, tenant_id, identity, name, roles, salt, digest, is_peppered, expires_at)
values (
    %(key_id)s, %(tenant_id)s, %(identity)s, %(name)s, %(roles)s::text[], %(salt)s, %(digest)s, %(is_peppered)s, now() + %(life)s::interval
);

-- name: find_key
-- A key by its id. Whether it has expired is for this clock to say.
select key_id, tenant_id, identity, roles, salt, digest, is_peppered,
       revoked_at is null and (expires_at is null or expires_at > now()),
       extract(epoch from now() - last_used_at)::float8
from api_key
where key_id = %(key_id)s;

-- name: touch_key
-- Notes a use; several processes at the same moment write it once.
update api_key
set last_used_at = now()
where key_id = %(key_id)s and (last_used_at is null or last_used_at < now() - interval '50 seconds');

-- name: list_keys
-- Keys for an operator, the newest first.
select key_id, tenant_id, identity, name, roles,
       case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired' else 'usable' end,
       created_at, expires_at, last_used_at
from api_key
where %(tenant_id)s::text is null or tenant_id = %(tenant_id)s
order by created_at desc, key_id;

-- name: revoke_key
-- Refuses a key from now on. No row: no such key, or it is revoked already.
update api_key
set revoked_at = now()
where key_id = %(key_id)s and (%(tenant_id)s::text is null or tenant_id = %(tenant_id)s) and revoked_at is null
returning key_id;
