-- The long-term store. The table is LangGraph's; `prefix` is the namespace (store_names.py), so it names the tenant, too.
-- What has expired is not there for any statement, swept or not. Two parts are put into the statements that need them:
-- {where} and {distance}.

-- name: put_items
-- Creates or replaces. An expired item is made anew. In one order, so that two batches cannot wait for each other.
insert into store as s (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes, ttl_seconds)
select p.prefix, p.key, p.value, now(), now(), now() + make_interval(secs => p.ttl), ceil(p.ttl / 60), p.ttl
from unnest(%(prefixes)s::text[], %(keys)s::text[], %(values)s::jsonb[], %(ttls)s::double precision[])
    as p (prefix, key, value, ttl)
order by p.prefix, p.key
on conflict (prefix, key) do update set
    value = excluded.value,
    created_at = case when s.expires_at <= now() then now() else s.created_at end,
    updated_at = now(),
    expires_at = excluded.expires_at,
    ttl_minutes = excluded.ttl_minutes,
    ttl_seconds = excluded.ttl_seconds

-- name: delete_items
with doomed as (
    select s.prefix, s.key
    from store s
    join unnest(%(prefixes)s::text[], %(keys)s::text[]) as d (prefix, key) using (prefix, key)
    order by s.prefix, s.key
    for update of s
)
delete from store s using doomed d where s.prefix = d.prefix and s.key = d.key

-- name: get_items
-- By their place in the arrays. Whoever is changing an item this moment also says when it expires: no need to wait for that.
with wanted as (
    select w.prefix, w.key, w.refresh, w.place
    from unnest(%(prefixes)s::text[], %(keys)s::text[], %(refresh)s::boolean[])
        with ordinality as w (prefix, key, refresh, place)
), due as (
    select s.prefix, s.key
    from store s
    join wanted w on s.prefix = w.prefix and s.key = w.key
    where w.refresh and s.ttl_minutes is not null and s.expires_at > now()
    for update of s skip locked
), refreshed as (
    update store s
    set expires_at = now() + make_interval(
        secs => case when ceil(s.ttl_seconds / 60) = s.ttl_minutes then s.ttl_seconds else s.ttl_minutes * 60.0 end
    )
    from due d
    where s.prefix = d.prefix and s.key = d.key
)
select w.place::integer, s.value::text, s.created_at, s.updated_at
from wanted w
join store s on s.prefix = w.prefix and s.key = w.key
where s.expires_at is null or s.expires_at > now()

-- name: where
-- A part of the searches: which rows of `store s` are meant. Fields that are not there count as null.
s.prefix operator(pg_catalog.~>=~) %(low)s::text
    and (%(high)s::text is null or s.prefix operator(pg_catalog.~<~) %(high)s::text)
    and (s.prefix operator(pg_catalog.~<~) %(gap)s::text or s.prefix operator(pg_catalog.~>=~) %(gap_end)s::text)
    and (s.expires_at is null or s.expires_at > now())
    and not exists (
        select
        from conditions c
        cross join lateral (select s.value #> c.path as found) v
        cross join lateral (select case
            when jsonb_typeof(v.found) <> jsonb_typeof(c.value) then null
            when jsonb_typeof(v.found) = 'string' then case
                when (v.found #>> '{}') collate "C" < (c.value #>> '{}') collate "C" then -1
                when v.found = c.value then 0
                else 1 end
            when jsonb_typeof(v.found) in ('number', 'boolean') then case
                when v.found < c.value then -1
                when v.found = c.value then 0
                else 1 end
        end as side) o
        where not coalesce(case c.op
            when 'eq' then coalesce(v.found, 'null') = coalesce(c.value, 'null')
            when 'ne' then coalesce(v.found, 'null') <> coalesce(c.value, 'null')
            when 'object' then jsonb_typeof(v.found) = 'object'
            when 'gt' then o.side > 0
            when 'gte' then o.side >= 0
            when 'lt' then o.side < 0
            when 'lte' then o.side <= 0
        end, false)
    )

-- name: search_items
-- The last changed first.
with conditions as materialized (
    select c.path, c.op, c.value
    from jsonb_to_recordset(%(conditions)s::jsonb) as c (path text[], op text, value jsonb)
), found as materialized (
    select s.prefix, s.key, s.value, s.created_at, s.updated_at
    from store s
    where {where}
    order by s.updated_at desc, s.prefix, s.key
    limit %(limit)s offset %(offset)s
), refreshed as ({refresh})
select f.prefix, f.key, f.value::text, f.created_at, f.updated_at, null::double precision as distance
from found f
order by f.updated_at desc, f.prefix, f.key

-- name: refresh
-- A part of the searches: what was found lives on, if the caller wants that.
update store s
    set expires_at = now() + make_interval(
        secs => case when ceil(s.ttl_seconds / 60) = s.ttl_minutes then s.ttl_seconds else s.ttl_minutes * 60.0 end
    )
    from (
        select d.prefix, d.key
        from store d
        join found f on f.prefix = d.prefix and f.key = d.key
        where %(refresh)s::boolean and d.ttl_minutes is not null and d.expires_at > now()
        for update of d skip locked
    ) due
    where s.prefix = due.prefix and s.key = due.key

-- name: search_by_meaning
-- The nearest first, by each item's nearest vector; then what has no vector, the last changed first. Exact.
with conditions as materialized (
    select c.path, c.op, c.value
    from jsonb_to_recordset(%(conditions)s::jsonb) as c (path text[], op text, value jsonb)
), scored as (
    select s.prefix, s.key, s.updated_at, min({distance}) as distance
    from store s
    left join {vectors} v on v.prefix = s.prefix and v.key = s.key
    where {where}
    group by s.prefix, s.key
    order by distance nulls last, s.updated_at desc, s.prefix, s.key
    limit %(limit)s offset %(offset)s
), found as materialized (
    select s.prefix, s.key, s.value, s.created_at, s.updated_at, n.distance
    from scored n
    join store s on s.prefix = n.prefix and s.key = n.key
), refreshed as ({refresh})
select f.prefix, f.key, f.value::text, f.created_at, f.updated_at, f.distance
from found f
order by f.distance nulls last, f.updated_at desc, f.prefix, f.key

-- name: search_nearest
-- The same by an index of pgvector, which is quick and may miss some. Fewer rows than asked for say nothing of the rest.
with conditions as materialized (
    select c.path, c.op, c.value
    from jsonb_to_recordset(%(conditions)s::jsonb) as c (path text[], op text, value jsonb)
), near as materialized (
    select v.prefix, v.key, {distance} as distance
    from store_vectors v
    join store s on s.prefix = v.prefix and s.key = v.key
    where {where}
    order by {distance}
    limit %(candidates)s
), scored as (
    select n.prefix, n.key, min(n.distance) as distance
    from near n
    group by n.prefix, n.key
    order by distance, n.prefix, n.key
    limit %(limit)s offset %(offset)s
), found as materialized (
    select s.prefix, s.key, s.value, s.created_at, s.updated_at, n.distance
    from scored n
    join store s on s.prefix = n.prefix and s.key = n.key
), refreshed as ({refresh})
select f.prefix, f.key, f.value::text, f.created_at, f.updated_at, f.distance
from found f
order by f.distance, f.updated_at desc, f.prefix, f.key

-- name: scan_on
-- Lets the indices of pgvector 0.8 look further when a condition sorted out what they had found. For one transaction.
select set_config('hnsw.iterative_scan', 'strict_order', true), set_config('ivfflat.iterative_scan', 'relaxed_order', true)

-- name: list_namespaces
-- Of one tenant, whose root has `depth` labels; cut to `max_depth`, without repetition, sorted label by label.
select distinct n.shown collate "C" as namespace
from store s
cross join lateral (select (string_to_array(s.prefix, '.'))[%(depth)s::integer + 1:] as labels) l
cross join lateral (select l.labels[:coalesce(%(max_depth)s::integer, cardinality(l.labels))] as shown) n
where s.prefix operator(pg_catalog.~>=~) %(low)s::text
    and (%(high)s::text is null or s.prefix operator(pg_catalog.~<~) %(high)s::text)
    and (s.prefix operator(pg_catalog.~<~) %(gap)s::text or s.prefix operator(pg_catalog.~>=~) %(gap_end)s::text)
    and (s.expires_at is null or s.expires_at > now())
    and cardinality(l.labels) >= cardinality(%(first)s::text[])
    and cardinality(l.labels) >= cardinality(%(last)s::text[])
    and not exists (
        select
        from unnest(%(first)s::text[]) with ordinality as f (label, place)
        where f.label <> '*' and f.label <> l.labels[f.place]
    )
    and not exists (
        select
        from unnest(%(last)s::text[]) with ordinality as f (label, place)
        where f.label <> '*' and f.label <> l.labels[cardinality(l.labels) - cardinality(%(last)s::text[]) + f.place]
    )
order by namespace
limit %(limit)s offset %(offset)s

-- name: sweep
-- Deletes a batch of what has expired, of all tenants; what somebody else sweeps or changes is skipped.
with expired as (
    select s.prefix, s.key
    from store s
    where s.expires_at <= now()
    order by s.expires_at
    limit %(limit)s
    for update skip locked
)
delete from store s using expired e where s.prefix = e.prefix and s.key = e.key
