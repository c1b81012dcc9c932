-- What the store needs besides LangGraph's own table `store`, which stays as it is for whoever else uses it.
-- A tenant's rows are told apart by the beginning of `prefix` (see waystation_db/store_names.py): a column in the
-- primary key would shut out LangGraph's own stores and the version before this one.

-- LangGraph keeps whole minutes. What we write is exact; it counts as long as `ttl_minutes` is what was written with it.
alter table store add column if not exists ttl_seconds double precision;

-- Embeddings where Postgres has no pgvector. With it they are in LangGraph's `store_vectors`.
create table if not exists store_embedding (
    prefix text not null,
    key text not null,
    field_name text not null,
    embedding real[] not null,
    norm double precision not null,
    primary key (prefix, key, field_name),
    foreign key (prefix, key) references store (prefix, key) on delete cascade
);

-- With which settings the vectors were made: vectors of two models cannot be compared.
create table if not exists store_index (
    only_row boolean primary key default true check (only_row),
    dims integer not null,
    embed text not null,
    fields text[] not null,
    made_at timestamptz not null default now()
);

-- Items whose vectors are to be made anew; `waystation reindex` fills and empties it.
create table if not exists store_reindex (
    prefix text not null,
    key text not null,
    primary key (prefix, key)
);
