-- Where a run crashed is told by its steps alone, and the first time not to the step: a graph whose steps do not wait for
-- their checkpoints is a little ahead of them. What kills its process is executed a fourth time only where it was more than
-- three steps ahead.

-- The newest step of the run's thread: how far the run has got. That its input was written down is no progress.
create or replace function waystation_head(r run) returns text
language sql stable
return (
    select c.checkpoint_id
    from checkpoints c
    where c.thread_id = waystation_checkpoint_thread(r.tenant_id, r.thread_id) and c.checkpoint_ns = ''
      and c.metadata ->> 'source' = 'loop'
    order by c.checkpoint_id desc
    limit 1
);

-- Where a run has just crashed, as `crashed_at` is to keep it. After a first crash steps wait for their checkpoints.
create function waystation_crash_place(r run) returns text
language sql stable
return case when r.crashes = 0 then '~' || coalesce(waystation_head(r), '') else waystation_head(r) end;

-- How many steps a run has got beyond a place, four at most.
create function waystation_steps_beyond(r run, place text) returns bigint
language sql stable
return (
    select count(*)
    from (
        select from checkpoints c
        where c.thread_id = waystation_checkpoint_thread(r.tenant_id, r.thread_id) and c.checkpoint_ns = ''
          and c.checkpoint_id > place and c.metadata ->> 'source' = 'loop'
        limit 4
    ) as steps
);

-- The crashes of a run that has just crashed once more: within three steps of where it seemed to be the first time, or at
-- the same step as the last time, are at the same place.
create or replace function waystation_crashes(r run) returns integer
language sql stable
return case
    when r.crashed_at like '~%' and waystation_steps_beyond(r, substr(r.crashed_at, 2)) <= 3 then r.crashes + 1
    when r.crashes > 0 and waystation_head(r) is not distinct from r.crashed_at then r.crashes + 1
    else 1
end;
