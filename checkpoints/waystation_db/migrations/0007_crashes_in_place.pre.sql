-- Crashes count as long as they happen at the same place: a run that committed a step since its last crash is no poison,
-- however often its workers are killed.

alter table run add column crashed_at text;

-- The newest checkpoint of the run's thread: how far the run has got.
create function waystation_head(r run) returns text
language sql stable
return (
    select c.checkpoint_id
    from checkpoints c
    where c.thread_id = r.thread_id::text and c.checkpoint_ns = ''
    order by c.checkpoint_id desc
    limit 1
);

-- The crashes of a run that has just crashed once more.
create function waystation_crashes(r run) returns integer
language sql stable
return case when waystation_head(r) is distinct from r.crashed_at then 1 else r.crashes + 1 end;
