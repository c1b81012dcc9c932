-- The events of a thread are numbered over all of its runs. While a run executes, its numbers are event_base + 1, + 2, ...;
-- thread.event_seq is the last number that no later run may take, and moves on in the statement that ends the run.

alter table thread add column event_seq bigint not null default 0;
-- Grows with each change of the state by hand, so that those who follow the thread see that there was one.
alter table thread add column state_updates bigint not null default 0;
-- Runs that ended before they began, whose last event has no number yet.
alter table thread add column event_owed integer not null default 0;

-- The thread's event_seq when the run was first claimed; null for a run that never began.
alter table run add column event_base bigint;
-- The number of the run's last event; null as long as it goes on, and for a run whose worker died for good.
alter table run add column event_last bigint;
-- What the run asked when it stopped: a list of objects with id and value.
alter table run add column event_asked jsonb;
-- Its events are those of the streaming protocol, and not what its stream modes make.
alter table run add column native boolean not null default false;

-- Runs of whose last event no row of `run` tells: rolled back, or ended before they began.
create table run_trace (
    tenant_id  text        not null default 'default',
    thread_id  uuid        not null,
    run_id     uuid        not null,
    graph_id   text        not null,
    attempt    integer     not null,
    epoch_ms   bigint      not null,
    resumable  boolean     not null,
    native     boolean     not null,
    event_base bigint,
    event_last bigint,
    ended_at   timestamptz not null default clock_timestamp(),
    primary key (tenant_id, thread_id, run_id),
    foreign key (tenant_id, thread_id) references thread on delete cascade
);
create index run_trace_by_age on run_trace (ended_at);

-- How far apart the numbers of two attempts lie where nobody can know how many the first one took.
create function waystation_event_stride() returns bigint
language sql immutable
return 16777216;

-- Numbers that no later run may take, after a run whose count is not known.
create function waystation_beyond(r run) returns bigint
language sql immutable
return r.event_base + r.attempt * waystation_event_stride();
