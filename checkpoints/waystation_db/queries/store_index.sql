-- Setting up and remembering how the store's vectors are made. Braces are names and numbers of our own, never data.

-- name: pgvector
-- Whether this server has pgvector, whether this database does, and which version.
select
    exists (select from pg_available_extensions where name = 'vector'),
    (select extversion from pg_extension where extname = 'vector')

-- name: lock
-- One process at a time changes tables; held until the transaction ends. False: somebody else is at it. Who waits must not keep
-- a connection for that, or behind a pooler none is left for the one that works.
select pg_try_advisory_xact_lock(hashtext('waystation store setup'))

-- name: lock_building
-- The same for building an index.
select pg_try_advisory_xact_lock(hashtext('waystation store index'))

-- name: create_extension
create extension if not exists vector

-- name: vectors_column
-- Type and dimensions of LangGraph's table of vectors; no row when it is not there.
select t.typname, a.atttypmod
from pg_attribute a
join pg_type t on t.oid = a.atttypid
where a.attrelid = to_regclass('store_vectors') and a.attname = 'embedding' and not a.attisdropped

-- name: create_vectors
-- LangGraph's table, as LangGraph makes it.
create table if not exists store_vectors (
    prefix text not null,
    key text not null,
    field_name text not null,
    embedding {vector_type}({dims}),
    created_at timestamp with time zone default current_timestamp,
    updated_at timestamp with time zone default current_timestamp,
    primary key (prefix, key, field_name),
    foreign key (prefix, key) references store (prefix, key) on delete cascade
)

-- name: drop_vectors
drop table store_vectors

-- name: any_vectors
select exists (select from store_vectors)

-- name: any_embeddings
select exists (select from store_embedding)

-- name: move_embeddings
-- After pgvector was installed: what was made without it is not made again.
with moved as (delete from store_embedding returning prefix, key, field_name, embedding)
insert into store_vectors (prefix, key, field_name, embedding)
select m.prefix, m.key, m.field_name, m.embedding::{vector_type} from moved m
on conflict (prefix, key, field_name) do nothing

-- name: remembered
select dims, embed, fields from store_index

-- name: remember
insert into store_index (dims, embed, fields) values (%(dims)s, %(embed)s, %(fields)s)
on conflict (only_row) do update
set dims = excluded.dims, embed = excluded.embed, fields = excluded.fields, made_at = now()

-- name: ann_index
-- Whether the index is there, and whether it is whole; no row when it is not there.
select i.indisvalid from pg_index i where i.indexrelid = to_regclass({name})

-- name: drop_ann_index
drop index concurrently if exists {index}

-- name: create_ann_index
create index concurrently if not exists {index} on store_vectors using {kind} (embedding {operators})

-- name: note_indexed
-- The items that have vectors, before these are thrown away.
insert into store_reindex (prefix, key)
select distinct v.prefix, v.key from {vectors} v
on conflict do nothing

-- name: note_all
-- Every item that has not expired, the ones that were never to be found by meaning among them.
insert into store_reindex (prefix, key)
select s.prefix, s.key from store s where s.expires_at is null or s.expires_at > now()
on conflict do nothing

-- name: forget_all
delete from {vectors}

-- name: noted
select count(*) from store_reindex

-- name: take_noted
-- The next items to embed. What is gone or was put again since is done already.
select r.prefix, r.key, s.value::text, s.updated_at
from store_reindex r
left join store s on s.prefix = r.prefix and s.key = r.key
left join lateral (select true as made from {vectors} v where v.prefix = r.prefix and v.key = r.key limit 1) m on true
where m.made is null
order by r.prefix, r.key
limit %(limit)s

-- name: forget_noted
delete from store_reindex r
using unnest(%(prefixes)s::text[], %(keys)s::text[]) as d (prefix, key)
where r.prefix = d.prefix and r.key = d.key

-- name: forget_done
delete from store_reindex r
where exists (select from {vectors} v where v.prefix = r.prefix and v.key = r.key)

-- name: hold_unchanged
-- Those of the items that are still what was embedded, held until the transaction ends.
select s.prefix, s.key
from store s
join unnest(%(prefixes)s::text[], %(keys)s::text[], %(updated)s::timestamptz[]) as r (prefix, key, updated_at)
    on s.prefix = r.prefix and s.key = r.key and s.updated_at = r.updated_at
order by s.prefix, s.key
for update of s

-- name: put_vectors
insert into store_vectors (prefix, key, field_name, embedding)
select p.prefix, p.key, p.field_name, p.embedding::{vector_type}
from unnest(%(prefixes)s::text[], %(keys)s::text[], %(fields)s::text[], %(embeddings)s::text[])
    as p (prefix, key, field_name, embedding)
on conflict (prefix, key, field_name) do update set embedding = excluded.embedding, updated_at = now()

-- name: put_embeddings
insert into store_embedding (prefix, key, field_name, embedding, norm)
select p.prefix, p.key, p.field_name, p.embedding::real[], p.norm
from unnest(
    %(prefixes)s::text[], %(keys)s::text[], %(fields)s::text[], %(embeddings)s::text[], %(norms)s::double precision[]
) as p (prefix, key, field_name, embedding, norm)
on conflict (prefix, key, field_name) do update set embedding = excluded.embedding, norm = excluded.norm

-- name: forget_vectors
-- Before an item's new vectors are put: it may have had others.
delete from {vectors} v
using unnest(%(prefixes)s::text[], %(keys)s::text[]) as p (prefix, key)
where v.prefix = p.prefix and v.key = p.key

-- name: distance_exact_cosine
-- Of one vector `v` to the query, in the words of pgvector. Vectors of length 0 are alike to nothing.
case when v.key is not null then coalesce(1 - (
    select sum(p.a * p.b) from unnest(v.embedding, %(query)s::double precision[]) as p (a, b)
) / nullif(v.norm * %(norm)s::double precision, 0), 1) end

-- name: distance_exact_l2
case when v.key is not null then sqrt((
    select sum((p.a - p.b) ^ 2) from unnest(v.embedding, %(query)s::double precision[]) as p (a, b)
)) end

-- name: distance_exact_inner_product
case when v.key is not null then -(
    select sum(p.a * p.b) from unnest(v.embedding, %(query)s::double precision[]) as p (a, b)
) end

-- name: distance_cosine
coalesce(nullif(v.embedding <=> %(query)s::{vector_type}, 'NaN'), case when v.key is not null then 1 end)

-- name: distance_l2
v.embedding <-> %(query)s::{vector_type}

-- name: distance_inner_product
v.embedding <#> %(query)s::{vector_type}

-- name: nearest_cosine
-- As the index knows it.
v.embedding <=> %(query)s::{vector_type}

-- name: nearest_l2
v.embedding <-> %(query)s::{vector_type}

-- name: nearest_inner_product
v.embedding <#> %(query)s::{vector_type}
