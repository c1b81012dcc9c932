-- What the tests see without asking anybody: triggers note every change of a status, and every write for a run together
-- with the attempt that was current at that moment.
create table witness_status (
    id bigserial primary key, thread_id uuid, run_id uuid, was text, became text, attempt int, crashes int, claimed_by text,
    at timestamptz default clock_timestamp()
);
create function witness_run() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        insert into witness_status (thread_id, run_id, was, became, attempt, crashes, claimed_by)
        values (old.thread_id, old.run_id, old.status, 'deleted', old.attempt, old.crashes, old.claimed_by);
    elsif tg_op = 'INSERT' or old.status is distinct from new.status or old.attempt is distinct from new.attempt then
        insert into witness_status (thread_id, run_id, was, became, attempt, crashes, claimed_by)
        values (new.thread_id, new.run_id, case when tg_op = 'UPDATE' then old.status end, new.status, new.attempt,
                new.crashes, new.claimed_by);
    end if;
    return null;
end $$;
create trigger witness_run after insert or update or delete on run for each row execute function witness_run();

create table witness_write (
    id bigserial primary key, kind text, run_id uuid, attempt int, step int, current_attempt int, current_status text,
    at timestamptz default clock_timestamp()
);
create function witness_checkpoint() returns trigger language plpgsql as $$
begin
    insert into witness_write (kind, run_id, attempt, step, current_attempt, current_status)
    select 'checkpoint', (new.metadata ->> 'run_id')::uuid, (new.metadata ->> 'run_attempt')::int,
           (new.metadata ->> 'step')::int, r.attempt, r.status
    from (select 1) as one
    left join run r on r.run_id = (new.metadata ->> 'run_id')::uuid;
    return null;
end $$;
create trigger witness_checkpoint after insert on checkpoints for each row execute function witness_checkpoint();

create function witness_chunk() returns trigger language plpgsql as $$
begin
    insert into witness_write (kind, run_id, attempt, current_attempt, current_status)
    select 'events', new.run_id, new.attempt, r.attempt, r.status
    from (select 1) as one
    left join run r on r.run_id = new.run_id;
    return null;
end $$;
create trigger witness_chunk after insert on event_chunk for each row execute function witness_chunk();
