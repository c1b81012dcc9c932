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
