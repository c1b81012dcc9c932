-- Backups. Tables and columns are put in by name ({table}, {columns}): those of backup_tables.py, as the catalog has them.

-- name: begin_snapshot
-- The moment of a backup: all of its readers see the database as it is now.
begin isolation level repeatable read, read only;

-- name: begin_load
-- A part of a backup goes in whole or not at all.
begin;

-- name: take_moment
-- Everything that follows is of one moment.
set transaction isolation level repeatable read, read only;

-- name: no_limits
-- A backup takes as long as it takes, and times in it are in UTC.
select set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true),
       set_config('lock_timeout', '0', true), set_config('timezone', 'UTC', true);

-- name: export_snapshot
-- Lets other connections see what this one sees.
select pg_export_snapshot(), clock_timestamp(), current_setting('server_version');

-- name: take_snapshot
-- The first statement of a reader's transaction.
set transaction snapshot {snapshot};

-- name: columns
-- The columns that hold something of their own, in their order: table, column, type.
select c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
from pg_class c
join pg_attribute a on a.attrelid = c.oid
where c.oid = any(array(select to_regclass(t) from unnest(%(tables)s::text[]) t))
  and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
order by c.relname, a.attnum;

-- name: keys
-- The columns of the primary keys: table, column.
select c.relname, a.attname
from pg_index i
join pg_class c on c.oid = i.indrelid
cross join lateral unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
where i.indisprimary and c.oid = any(array(select to_regclass(t) from unnest(%(tables)s::text[]) t))
order by c.relname, k.n;

-- name: pages
-- How many pages each table has.
select t, pg_relation_size(to_regclass(t)) / current_setting('block_size')::bigint
from unnest(%(tables)s::text[]) t
where to_regclass(t) is not null;

-- name: own_tables
-- Every table of the schema that a server uses.
select c.relname
from pg_class c
where c.relnamespace = (select relnamespace from pg_class where oid = to_regclass('thread'))
  and c.relkind in ('r', 'p')
order by c.relname;

-- name: own_sequences
-- Sequences beside them: there is none, and a backup would have to know.
select c.relname
from pg_class c
where c.relnamespace = (select relnamespace from pg_class where oid = to_regclass('thread')) and c.relkind = 'S'
order by c.relname;

-- name: encryption_keys
-- The ids of the keys that values were encrypted with.
select key_id from encryption_key order by key_id;

-- name: copy_out
-- The rows of some pages of a table.
copy (select {columns} from {table} where ({condition}) and ctid >= {first} and ctid < {end}) to stdout (format binary);

-- name: copy_vectors_out
-- Vectors of pgvector in the form in which they are kept without it.
copy (
    select {columns}
    from (
        select prefix, key, field_name, v.embedding::real[] as embedding, sqrt((
                   select coalesce(sum(x::float8 * x::float8), 0) from unnest(v.embedding::real[]) x)) as norm
        from {table} v
        where ({condition}) and ctid >= {first} and ctid < {end}
    ) w
) to stdout (format binary);

-- name: copy_in
-- Rows into the place where they wait.
copy {table} ({columns}) from stdin (format binary);

-- name: of_all
-- Whatever is there.
true;

-- name: of_tenant
-- Rows with a tenant.
tenant_id = {tenant};

-- name: of_thread
-- Rows of LangGraph's checkpoint tables, by the name under which a tenant's threads stand there (migration 0022).
case when {tenant} = 'default'
     then thread_id !~* '^[^/]+/[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
     else starts_with(thread_id, {tenant} || '/')
end;

-- name: of_prefix
-- Rows of the store, by the beginning of a tenant's prefixes (store_names.py).
case when {tenant} = 'default' then not starts_with(prefix, '.') else starts_with(prefix, {root}) end;

-- name: is_there
-- Whether a table has such rows.
select exists (select from {table} where {condition});

-- name: lock_restore
-- One restore at a time; held to the end of the transaction.
select pg_try_advisory_xact_lock(7021857392664411);

-- name: has_place
-- Whether a restore has begun here, and its tables are still there.
select to_regclass('waystation_restore.job') is not null;

-- name: get_job
-- Which backup is being restored, and how. Nothing where Postgres has crashed since: unlogged tables are empty then.
select digest, options from waystation_restore.job;

-- name: drop_place
-- Forgets what waits to be restored.
drop schema if exists waystation_restore cascade;

-- name: make_place
-- Where rows wait until all are there. Not logged: a crash of Postgres empties all of it, and the restore begins again.
create schema waystation_restore;

-- name: make_job
-- Which backup is being restored.
create unlogged table waystation_restore.job (digest text not null, options jsonb not null);

-- name: make_parts
-- Which parts of it are in.
create unlogged table waystation_restore.part ("table" text not null, sha256 text not null, rows bigint not null,
    primary key ("table", sha256));

-- name: note_job
-- Written last: without it the place is not complete.
insert into waystation_restore.job (digest, options) values (%(digest)s, %(options)s);

-- name: make_table
-- Where the rows of a table wait: the columns that the backup has.
create unlogged table {waiting} as select {columns} from {table} with no data;

-- name: parts_in
-- The parts that are in.
select "table", sha256 from waystation_restore.part;

-- name: note_part
-- A part is in; fails where somebody else has put it in.
insert into waystation_restore.part ("table", sha256, rows) values (%(table)s, %(sha256)s, %(rows)s);

-- name: only_tenant
-- Leaves the rows of one tenant.
delete from {waiting} where not ({condition});

-- name: analyze
-- Plans of what follows need to know how much there is.
analyze {table};

-- name: find_kept_threads
-- Threads of the backup that are here too, in whichever table.
create unlogged table waystation_restore.met as
select key
from (
    select waystation_checkpoint_thread(tenant_id, thread_id) as key from waystation_restore.thread
    union
    select thread_id from waystation_restore.checkpoints
) s
where exists (select from checkpoints c where c.thread_id = s.key)
   or exists (select from thread t where waystation_checkpoint_thread(t.tenant_id, t.thread_id) = s.key);

-- name: of_met_thread
-- Rows of threads that are in both.
waystation_checkpoint_thread(tenant_id, thread_id) in (select key from waystation_restore.met);

-- name: of_met_key
-- The same for LangGraph's tables.
thread_id in (select key from waystation_restore.met);

-- name: hush_met_runs
-- A run that is replaced by its older self does not end: nobody is told that it did.
update run set webhook = null
where webhook is not null and ended_at is null
  and waystation_checkpoint_thread(tenant_id, thread_id) in (select key from waystation_restore.met);

-- name: delete_where
-- Takes rows out.
delete from {table} where {condition};

-- name: delete_met
-- Takes those rows out whose unit the other side has.
delete from {table} x using {other} y where {equal};

-- name: count_waiting
-- How many rows wait.
select count(*) from {waiting};

-- name: requeue_running
-- What ran when the backup was made waits for a worker again, at its place; no crash is counted.
update waystation_restore.run
set status = 'pending', lease_expires_at = null, claimed_by = null
where status = 'running';

-- name: pause_runs
-- Paused: due 4,800 years later, which is the same day of the same calendar.
update waystation_restore.run set run_after = run_after + interval '4800 years' where status = 'pending';

-- name: pause_crons
update waystation_restore.cron set next_run_at = next_run_at + interval '4800 years' where enabled;

-- name: pause_webhooks
update waystation_restore.webhook_delivery set due_at = due_at + interval '4800 years' where status = 'pending';

-- name: release_runs
-- Paused runs wait as they did.
with released as (
    update run set run_after = run_after - interval '4800 years', updated_at = clock_timestamp()
    where status = 'pending' and run_after > now() + interval '4000 years'
    returning 1
)
select count(*), pg_notify('ws_run', '')::text from released;

-- name: release_crons
with released as (
    update cron set next_run_at = next_run_at - interval '4800 years'
    where next_run_at > now() + interval '4000 years'
    returning 1
)
select count(*) from released;

-- name: release_webhooks
with released as (
    update webhook_delivery set due_at = due_at - interval '4800 years'
    where status = 'pending' and due_at > now() + interval '4000 years'
    returning 1
)
select count(*), pg_notify('ws_webhook', '')::text from released;

-- name: reindex_waiting
-- Items whose vectors cannot be taken over get new ones from `waystation reindex --continue`.
insert into waystation_restore.store_reindex (prefix, key)
select prefix, key from waystation_restore.store_embedding
group by prefix, key;

-- name: store_index
-- With which settings vectors were made.
select dims, embed, fields from {table};

-- name: put_in
-- Rows to where they belong.
insert into {table} ({columns}) select {columns} from {waiting} {conflict};

-- name: or_nothing
on conflict do nothing;

-- name: wake
-- Workers look at the queue.
select pg_notify('ws_run', '')::text;

-- name: get_rows
-- Rows of one thread as JSON: what is exact in Postgres stays exact.
select row_to_json(x)::text from (select {columns} from {table} where {condition}) x;

-- name: of_one_thread
tenant_id = {tenant} and thread_id = {thread}::uuid;

-- name: of_one_key
thread_id = waystation_checkpoint_thread({tenant}, {thread}::uuid);

-- name: of_namespace
starts_with(prefix || '.', {namespace});

-- name: put_row
-- One row, from JSON, and what is to be different.
insert into {table} ({columns})
select {columns}
from json_populate_record(json_populate_record(null::{table}, %(row)s::json), %(changes)s::json) {conflict};

-- name: thread_is_there
-- Whether there is anything of a thread.
select exists (select from thread t where t.tenant_id = %(tenant)s and t.thread_id = %(thread)s)
    or exists (select from checkpoints c where c.thread_id = waystation_checkpoint_thread(%(tenant)s, %(thread)s));

-- name: pause_thread
-- The waiting runs of one thread.
update run set run_after = run_after + interval '4800 years'
where tenant_id = %(tenant)s and thread_id = %(thread)s and status = 'pending';

-- name: reindex_item
-- An item that came without its vectors.
insert into store_reindex (prefix, key) values (%(prefix)s, %(key)s) on conflict do nothing;
