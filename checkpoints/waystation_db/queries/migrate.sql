-- name: try_lock
-- Takes the migration lock for the open transaction. It must not wait: a statement that waits holds a snapshot, and
-- `create index concurrently` under the lock would wait for that snapshot for ever.
select pg_try_advisory_xact_lock(7021857392664410);

-- name: keep_lock
-- The transaction that holds the lock is idle while the migrations run on another connection.
set local idle_in_transaction_session_timeout = 0;

-- name: still_locked
-- Fails when the connection that holds the lock is gone, and with it the lock.
select 1;

-- name: existing_tables
-- Which of the tables that record applied migrations are there.
select to_regclass('waystation_migration') is not null,
       to_regclass('checkpoint_migrations') is not null,
       to_regclass('store_migrations') is not null;

-- name: create_table
-- Our own record of applied migrations; made under the lock.
create table if not exists waystation_migration (
    name       text        not null primary key,
    checksum   text        not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- name: applied
-- What was applied to this database, by us or by a newer version.
select name, checksum from waystation_migration order by name;

-- name: record
-- Notes a migration as applied, in its own transaction where it has one.
insert into waystation_migration (name, checksum) values (%(name)s, %(checksum)s);

-- name: lock_timeout
-- A DDL statement that waits for a lock blocks everybody behind it; it gives up soon and is tried again.
set local lock_timeout = '1s';

-- name: lock_timeout_on
-- The same outside of a transaction.
set lock_timeout = '1s';

-- name: lock_timeout_off
-- For what comes after it on this connection.
set lock_timeout = 0;

-- name: absent
-- Which of these tables are not there.
select n from unnest(%(names)s::text[]) as n where to_regclass(n) is null;

-- name: present
-- Which of these tables are there.
select n from unnest(%(names)s::text[]) as n where to_regclass(n) is not null;

-- name: sizes
-- Roughly how many rows tables have; only those that are there. Minus one: nobody has counted yet.
select n, c.reltuples::bigint
from unnest(%(names)s::text[]) as n
join pg_class c on c.oid = to_regclass(n);

-- name: long_transactions
-- Transactions that are open on this database and that locks may have to wait for: how many, and since when in seconds.
select count(*), coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and xact_start < clock_timestamp() - interval '1 second';

-- name: checkpoint_version
-- How far langgraph-checkpoint-postgres has brought its checkpoint tables.
select coalesce(max(v), -1) from checkpoint_migrations;

-- name: store_version
-- How far langgraph-checkpoint-postgres has brought its store tables.
select coalesce(max(v), -1) from store_migrations;
