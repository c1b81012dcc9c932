-- The engine's tables. Every table carries its tenant; the hot ones are keyed by (tenant_id, thread_id), so that they
-- distribute by thread. Times are those of the database. LangGraph's own tables (checkpoints, store) stand beside these,
-- made by 0002 in the layout of langgraph-checkpoint-postgres.

create table assistant (
    tenant_id     text        not null default 'default',
    assistant_id  uuid        not null,
    graph_id      text        not null,
    name          text        not null default 'Untitled',
    description   text,
    config        jsonb       not null default '{}',
    context       jsonb       not null default '{}',
    metadata      jsonb       not null default '{}',
    version       integer     not null default 1 check (version >= 1),
    created_at    timestamptz not null default clock_timestamp(),
    updated_at    timestamptz not null default clock_timestamp(),
    primary key (tenant_id, assistant_id)
);
create index assistant_by_age on assistant (tenant_id, created_at desc);
create index assistant_by_graph on assistant (tenant_id, graph_id);

create table assistant_version (
    tenant_id     text        not null default 'default',
    assistant_id  uuid        not null,
    version       integer     not null check (version >= 1),
    graph_id      text        not null,
    name          text        not null,
    description   text,
    config        jsonb       not null default '{}',
    context       jsonb       not null default '{}',
    metadata      jsonb       not null default '{}',
    created_at    timestamptz not null default clock_timestamp(),
    primary key (tenant_id, assistant_id, version),
    foreign key (tenant_id, assistant_id) references assistant on delete cascade
);

-- active_runs counts the pending and running runs. Every statement that changes it holds the thread's row, so a thread
-- is busy exactly while a run of it is not final: the CHECK says it, and no statement has to count.
create table thread (
    tenant_id        text        not null default 'default',
    thread_id        uuid        not null,
    status           text        not null default 'idle',
    active_runs      integer     not null default 0 check (active_runs >= 0),
    -- The status the thread returns to when its last active run leaves without a trace (rollback, deletion).
    resting_status   text        not null default 'idle' check (resting_status in ('idle', 'interrupted', 'error')),
    metadata         jsonb       not null default '{}',
    config           jsonb       not null default '{}',
    "values"         jsonb,
    interrupts       jsonb,
    error            jsonb,
    -- Set when a stateless run's thread is done with: invisible to clients at once, removed by upkeep soon after.
    hidden_at        timestamptz,
    ttl_strategy     text        check (ttl_strategy in ('delete', 'keep_latest')),
    ttl_minutes      double precision check (ttl_minutes > 0),
    expires_at       timestamptz,
    created_at       timestamptz not null default clock_timestamp(),
    updated_at       timestamptz not null default clock_timestamp(),
    state_updated_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, thread_id),
    check (status in ('idle', 'busy', 'interrupted', 'error')),
    check ((status = 'busy') = (active_runs > 0))
) with (fillfactor = 80);
create index thread_by_age on thread (tenant_id, created_at desc, thread_id desc);
create index thread_by_metadata on thread using gin (metadata jsonb_path_ops);
create index thread_expiring on thread (expires_at) where expires_at is not null;
create index thread_hidden on thread (hidden_at) where hidden_at is not null;

create table run (
    tenant_id          text        not null default 'default',
    thread_id          uuid        not null,
    run_id             uuid        not null,
    assistant_id       uuid        not null,
    graph_id           text        not null,
    status             text        not null default 'pending',
    -- The fencing token. It only grows; a write for the run names the attempt it was made by.
    attempt            integer     not null default 0 check (attempt >= 0),
    crashes            integer     not null default 0 check (crashes >= 0),
    priority           smallint    not null default 0,
    multitask_strategy text        not null default 'enqueue'
                       check (multitask_strategy in ('reject', 'enqueue', 'interrupt', 'rollback')),
    metadata           jsonb       not null default '{}',
    -- json and not jsonb: inputs come back with their members in the order they were sent in.
    kwargs             json        not null,
    -- The assistant as it was when the run was created: a later patch does not change a run that waits.
    assistant_config   jsonb       not null default '{}',
    assistant_context  jsonb       not null default '{}',
    resumable          boolean     not null default false,
    -- A stateless run whose thread goes with it.
    temporary          boolean     not null default false,
    run_after          timestamptz not null default clock_timestamp(),
    claimed_by         text,
    -- Milliseconds of the database's clock at the claim, always greater than at the claim before: the first half of event ids.
    epoch_ms           bigint      not null default 0,
    lease_expires_at   timestamptz,
    cancel_action      text        check (cancel_action in ('interrupt', 'rollback')),
    cancel_reason      text,
    error              jsonb,
    started_at         timestamptz,
    ended_at           timestamptz,
    created_at         timestamptz not null default clock_timestamp(),
    updated_at         timestamptz not null default clock_timestamp(),
    primary key (tenant_id, thread_id, run_id),
    foreign key (tenant_id, thread_id) references thread on delete cascade,
    check (status in ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')),
    check ((status = 'running') = (lease_expires_at is not null)),
    check ((status in ('success', 'error', 'timeout', 'interrupted')) = (ended_at is not null))
) with (fillfactor = 70);
create unique index run_one_running_per_thread on run (tenant_id, thread_id) where status = 'running';
create index run_waiting on run (priority desc, run_after, created_at) where status = 'pending';
create index run_waiting_by_thread on run (tenant_id, thread_id, created_at, run_id) where status = 'pending';
create index run_leased on run (lease_expires_at) where status = 'running';

-- One row per Idempotency-Key seen: the run it made, so that a repeated request gets the same answer.
create table run_idempotency (
    tenant_id    text        not null default 'default',
    key          text        not null,
    request_hash bytea       not null,
    thread_id    uuid        not null,
    run_id       uuid        not null,
    created_at   timestamptz not null default clock_timestamp(),
    primary key (tenant_id, key)
);
create index run_idempotency_by_age on run_idempotency (created_at);

-- The event log in Postgres: several events of one run and attempt per row, in the order of their ids.
-- An id is (epoch_ms, counter); a row holds the counters first_counter .. last_counter of one epoch.
create table event_chunk (
    tenant_id     text        not null default 'default',
    thread_id     uuid        not null,
    run_id        uuid        not null,
    epoch_ms      bigint      not null,
    first_counter integer     not null,
    last_counter  integer     not null check (last_counter >= first_counter),
    attempt       integer     not null,
    payload       bytea       not null,
    created_at    timestamptz not null default clock_timestamp(),
    primary key (tenant_id, thread_id, run_id, epoch_ms, first_counter)
);
-- They live for minutes: compressing them costs more than it saves.
alter table event_chunk alter column payload set storage external;
create index event_chunk_by_age on event_chunk using brin (created_at);
