-- A run that answers an interrupt writes on a checkpoint that another run left. What was there before is kept here, so
-- that rolling the run back leaves the thread as it was. A null channel says that there was no such row. Thread ids of
-- checkpoints are text and those of runs uuid: a run's thread is always both.

create table checkpoint_write_before (
    tenant_id     text    not null default 'default',
    thread_id     uuid    not null,
    run_id        uuid    not null,
    checkpoint_ns text    not null,
    checkpoint_id text    not null,
    task_id       text    not null,
    idx           integer not null,
    task_path     text,
    channel       text,
    type          text,
    blob          bytea,
    primary key (thread_id, run_id, tenant_id, checkpoint_ns, checkpoint_id, task_id, idx),
    foreign key (tenant_id, thread_id, run_id) references run on delete cascade,
    check ((channel is null) = (blob is null))
);
