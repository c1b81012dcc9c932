-- The event log in Postgres. A chunk is written only while its attempt holds the run; an id is (epoch_ms, counter).

-- name: append_chunks
-- Writes chunks of several runs, each only if its attempt is the current one and running. Safe to repeat. Returns the
-- places, in the list of runs, of those that may write; tells the readers of these if `notify`.
with alive as (
    select w.place, r.tenant_id, r.thread_id, r.run_id, r.attempt
    from unnest(%(tenant_ids)s::text[], %(thread_ids)s::uuid[], %(run_ids)s::uuid[], %(attempts)s::int[])
        with ordinality as w (tenant_id, thread_id, run_id, attempt, place)
    join run r on r.tenant_id = w.tenant_id and r.thread_id = w.thread_id and r.run_id = w.run_id
    where r.status = 'running' and r.attempt = w.attempt
    order by r.run_id
    for share of r
), added as (
    insert into event_chunk (tenant_id, thread_id, run_id, epoch_ms, first_counter, last_counter, attempt, payload)
    select a.tenant_id, a.thread_id, a.run_id, c.epoch_ms, c.first_counter, c.last_counter, a.attempt, c.payload
    from unnest(%(places)s::int[], %(epochs)s::bigint[], %(firsts)s::int[], %(lasts)s::int[], %(payloads)s::bytea[])
        as c (place, epoch_ms, first_counter, last_counter, payload)
    join alive a on a.place = c.place
    on conflict do nothing
)
select a.place::int,
       case when %(notify)s then pg_notify('ws_event', a.tenant_id || '/' || a.thread_id || '/' || a.run_id)::text end
from alive a;

-- name: read_chunks
-- For each place a run's state and its chunks after an id, oldest first, up to a number of chunks and bytes. A run that is
-- not there has no status. All in one snapshot: if the status is final, no chunk is to come.
select w.place::int, r.status, r.attempt, r.epoch_ms, r.resumable, r.error,
       c.epoch_ms, c.first_counter, c.last_counter, c.payload
from unnest(%(tenant_ids)s::text[], %(thread_ids)s::uuid[], %(run_ids)s::uuid[], %(epochs)s::bigint[], %(counters)s::int[])
    with ordinality as w (tenant_id, thread_id, run_id, epoch_ms, counter, place)
left join run r on r.tenant_id = w.tenant_id and r.thread_id = w.thread_id and r.run_id = w.run_id
left join lateral (
    select s.epoch_ms, s.first_counter, s.last_counter, s.payload
    from (
        select e.epoch_ms, e.first_counter, e.last_counter, e.payload,
               sum(octet_length(e.payload)) over (order by e.epoch_ms, e.first_counter) - octet_length(e.payload) as before
        from (
            select k.epoch_ms, k.first_counter, k.last_counter, k.payload
            from event_chunk k
            where k.tenant_id = w.tenant_id and k.thread_id = w.thread_id and k.run_id = w.run_id
              -- The chunk that the id is in or that begins behind it: the index leads straight there.
              and (k.epoch_ms, k.first_counter) >= (w.epoch_ms, coalesce((
                  select p.first_counter
                  from event_chunk p
                  where p.tenant_id = w.tenant_id and p.thread_id = w.thread_id and p.run_id = w.run_id
                    and p.epoch_ms = w.epoch_ms and p.first_counter <= w.counter + 1
                  order by p.first_counter desc
                  limit 1
              ), 0))
              and (k.epoch_ms > w.epoch_ms or k.last_counter > w.counter)
            order by k.epoch_ms, k.first_counter
            limit %(chunks)s
        ) e
    ) s
    where s.before < %(bytes)s
) c on true
order by w.place, c.epoch_ms, c.first_counter;

-- name: changed_runs
-- The places of those runs that are final or gone, or have a chunk after the id.
select w.place::int
from unnest(%(tenant_ids)s::text[], %(thread_ids)s::uuid[], %(run_ids)s::uuid[], %(epochs)s::bigint[], %(counters)s::int[])
    with ordinality as w (tenant_id, thread_id, run_id, epoch_ms, counter, place)
left join run r on r.tenant_id = w.tenant_id and r.thread_id = w.thread_id and r.run_id = w.run_id
where r.run_id is null
   or r.status in ('success', 'error', 'timeout', 'interrupted')
   or (
       select (c.epoch_ms, c.last_counter) > (w.epoch_ms, w.counter)
       from event_chunk c
       where c.tenant_id = w.tenant_id and c.thread_id = w.thread_id and c.run_id = w.run_id
       order by c.epoch_ms desc, c.first_counter desc
       limit 1
   );

-- name: last_chunk
-- The newest chunk of a run.
select epoch_ms, first_counter, last_counter, payload
from event_chunk
where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = %(run_id)s
order by epoch_ms desc, first_counter desc
limit 1;

-- name: announce
-- Tells the readers of a run that its row has something to say.
select pg_notify('ws_event', %(payload)s);

-- name: delete_chunks
-- Drops a run's events and tells its readers.
with gone as (
    delete from event_chunk
    where tenant_id = %(tenant_id)s and thread_id = %(thread_id)s and run_id = %(run_id)s
)
select pg_notify('ws_event', %(payload)s);

-- name: delete_expired_chunks
-- Drops up to `limit` chunks of runs that ended `ttl_s` seconds ago or are no longer there.
with spent as (
    select c.tenant_id, c.thread_id, c.run_id, c.epoch_ms, c.first_counter
    from event_chunk c
    left join run r on r.tenant_id = c.tenant_id and r.thread_id = c.thread_id and r.run_id = c.run_id
    where c.created_at < now() - make_interval(secs => %(ttl_s)s)
      and (r.run_id is null or r.ended_at < now() - make_interval(secs => %(ttl_s)s))
    order by c.tenant_id, c.thread_id, c.run_id, c.epoch_ms, c.first_counter
    limit %(limit)s
    for update of c skip locked
)
delete from event_chunk c
using spent s
where c.tenant_id = s.tenant_id and c.thread_id = s.thread_id and c.run_id = s.run_id
  and c.epoch_ms = s.epoch_ms and c.first_counter = s.first_counter;
