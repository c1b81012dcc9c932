-- What guards agree on from moment to moment, without a Redis (0041_guard_state). Each statement is one atomic step.

-- name: draw
-- Takes from several buckets or from none: whether, the seconds to wait, what is left.
select waystation_guard_draw(%(draws)s::jsonb, %(patience_s)s::float8)::text;

-- name: give_back
-- Returns what was not used to a bucket; a negative cost takes what was used beyond.
insert into guard_bucket as b (tenant_id, name, amount, seconds, level, at)
values (%(tenant_id)s, %(name)s, %(amount)s, %(seconds)s, least(%(amount)s::float8, %(amount)s::float8 + %(cost)s), clock_timestamp())
on conflict (tenant_id, name, amount, seconds) do update
set level = least(b.amount, waystation_bucket_level(b, clock_timestamp()) + %(cost)s), at = clock_timestamp();

-- name: pause
-- Lets nothing be taken for so long. Only ever extends a pause.
insert into guard_pause as p (tenant_id, name, until)
values (%(tenant_id)s, %(name)s, clock_timestamp() + make_interval(secs => %(seconds)s))
on conflict (tenant_id, name) do update
set until = greatest(p.until, excluded.until);

-- name: enter
-- Takes one of so many places, or renews it.
select waystation_guard_enter_place(%(tenant_id)s, %(name)s, %(limit)s, %(holder)s, %(ttl_s)s);

-- name: leave
-- Gives a place back.
delete from guard_place
where tenant_id = %(tenant_id)s and name = %(name)s and holder = %(holder)s;

-- name: breaker
-- Seconds until an open breaker may be probed (below zero: now). No row: it is closed.
select extract(epoch from greatest(open_until, coalesce(probe_until, '-infinity')) - clock_timestamp())::float8
from guard_breaker
where tenant_id = %(tenant_id)s and target = %(target)s;

-- name: probe
-- Takes the probe of a breaker whose cool-down is over. No row: somebody else has it.
update guard_breaker
set probe_until = clock_timestamp() + make_interval(secs => %(probe_s)s)
where tenant_id = %(tenant_id)s and target = %(target)s
  and open_until <= clock_timestamp() and coalesce(probe_until, '-infinity') <= clock_timestamp()
returning target;

-- name: report
-- Counts a call's outcome; whether the breaker opened or closed by it.
select waystation_guard_report(
    %(tenant_id)s, %(target)s, %(ok)s, %(is_probe)s, %(asked_s)s::float8,
    %(failure_rate)s::float8, %(minimum)s, %(window_s)s::float8, %(cooldown_s)s::float8);

-- name: read_value
-- A shared value.
select "value"
from guard_value
where tenant_id = %(tenant_id)s and name = %(name)s
  and "value" is not null and (expires_at is null or expires_at > clock_timestamp());

-- name: write_value
-- Sets or removes a shared value; its version, which only grows.
insert into guard_value as v (tenant_id, name, "value", version, expires_at)
values (%(tenant_id)s, %(name)s, %(value)s, (extract(epoch from clock_timestamp()) * 1e6)::bigint,
        clock_timestamp() + make_interval(secs => %(ttl_s)s::float8))
on conflict (tenant_id, name) do update
set "value" = excluded."value", expires_at = excluded.expires_at, updated_at = clock_timestamp(),
    version = greatest(v.version + 1, excluded.version)
returning version;

-- name: all_values
-- All shared values of a tenant, those that were removed a short time ago too: name, value, version, milliseconds left.
select name, "value", version, (extract(epoch from expires_at - clock_timestamp()) * 1000)::bigint
from guard_value
where tenant_id = %(tenant_id)s and (expires_at is null or expires_at > clock_timestamp());

-- name: forget
-- Throws away up to `limit` of each kind of what is over.
with buckets as (
    select tenant_id, name, amount, seconds
    from guard_bucket
    where at + make_interval(secs => least((amount - level) * seconds / amount, 1e8) + 60) < clock_timestamp()
    limit %(limit)s
    for update skip locked
), no_bucket as (
    delete from guard_bucket b using buckets o
    where b.tenant_id = o.tenant_id and b.name = o.name and b.amount = o.amount and b.seconds = o.seconds
), no_pause as (
    delete from guard_pause
    where until < clock_timestamp() - interval '1 minute'
), no_place as (
    delete from guard_place
    where until < clock_timestamp() - interval '1 minute'
), no_outcome as (
    delete from guard_outcome
    where (slice + 60) * window_s / 20 < extract(epoch from clock_timestamp())::float8
), no_value as (
    delete from guard_value
    where ("value" is null or expires_at < clock_timestamp()) and updated_at < clock_timestamp() - interval '1 day'
), cached as (
    select tenant_id, key
    from guard_cache
    where expires_at < clock_timestamp()
    order by expires_at
    limit %(limit)s
    for update skip locked
), no_cached as (
    delete from guard_cache c using cached o
    where c.tenant_id = o.tenant_id and c.key = o.key and c.expires_at < clock_timestamp()
)
delete from guard_lock
where expires_at < clock_timestamp() - interval '1 minute';
