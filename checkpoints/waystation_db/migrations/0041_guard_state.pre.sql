-- What guards of all processes agree on from moment to moment, and what they may forget, where there is no Redis. Tables
-- whose loss costs nothing but a little generosity are unlogged: a change of them writes nothing that a commit waits for.
-- Shared values (levels, switches) are kept in any case. Names that all tenants share stand under the tenant ''.

create unlogged table guard_bucket (
    tenant_id   text        not null,
    name        text        not null,
    amount      float8      not null,
    seconds     float8      not null,
    -- What was in it at that moment; below zero for a debt.
    level       float8      not null,
    at          timestamptz not null,
    primary key (tenant_id, name, amount, seconds)
) with (fillfactor = 50);

create unlogged table guard_pause (
    tenant_id   text        not null,
    name        text        not null,
    until       timestamptz not null,
    primary key (tenant_id, name)
);

create unlogged table guard_place (
    tenant_id   text        not null,
    name        text        not null,
    holder      text        not null,
    until       timestamptz not null,
    primary key (tenant_id, name, holder)
);

-- A row for each breaker that is open.
create unlogged table guard_breaker (
    tenant_id   text        not null,
    target      text        not null,
    open_until  timestamptz not null,
    probe_until timestamptz,
    primary key (tenant_id, target)
);

-- Outcomes of calls of closed breakers, by twentieths of the window: what is kept does not grow with the number of calls.
create unlogged table guard_outcome (
    tenant_id   text        not null,
    target      text        not null,
    window_s    float8      not null,
    slice       bigint      not null,
    calls       integer     not null,
    failed      integer     not null,
    primary key (tenant_id, target, window_s, slice)
) with (fillfactor = 50);

-- Removed values stay for a while: copies of them elsewhere have to learn of it.
create table guard_value (
    tenant_id   text        not null,
    name        text        not null,
    "value"     text,
    version     bigint      not null,
    expires_at  timestamptz,
    updated_at  timestamptz not null default clock_timestamp(),
    primary key (tenant_id, name)
);

create unlogged table guard_cache (
    tenant_id   text        not null,
    key         text        not null,
    "value"     bytea       not null,
    expires_at  timestamptz not null,
    primary key (tenant_id, key)
);
create index guard_cache_expiring on guard_cache (expires_at);

create unlogged table guard_lock (
    tenant_id   text        not null,
    key         text        not null,
    holder      text        not null,
    expires_at  timestamptz not null,
    primary key (tenant_id, key)
);

-- Takes from several buckets, of each its own cost, or from none: [{"tenant", "name", "amount", "seconds", "cost"}, ...].
-- Returns [taken, seconds to wait, [what is left in each]]. Buckets are locked in one order for everybody.
create function waystation_guard_draw(draws jsonb, patience float8) returns jsonb
language plpgsql as $$
declare
    found_buckets integer;
    moment timestamptz;
    wait float8;
    taken boolean;
    left_over jsonb;
begin
    insert into guard_bucket (tenant_id, name, amount, seconds, level, at)
    select x ->> 'tenant', x ->> 'name', (x ->> 'amount')::float8, (x ->> 'seconds')::float8, (x ->> 'amount')::float8,
           clock_timestamp()
    from jsonb_array_elements(draws) x
    where not exists (
        select from guard_bucket b
        where b.tenant_id = x ->> 'tenant' and b.name = x ->> 'name' and b.amount = (x ->> 'amount')::float8
          and b.seconds = (x ->> 'seconds')::float8)
    order by 1, 2, 3, 4
    on conflict do nothing;
    perform from guard_bucket b
    join jsonb_array_elements(draws) x
      on b.tenant_id = x ->> 'tenant' and b.name = x ->> 'name' and b.amount = (x ->> 'amount')::float8
     and b.seconds = (x ->> 'seconds')::float8
    order by b.tenant_id, b.name, b.amount, b.seconds
    for no key update of b;
    get diagnostics found_buckets = row_count;
    if found_buckets < jsonb_array_length(draws) then
        raise exception 'a bucket was thrown away in this moment' using errcode = 'serialization_failure';
    end if;
    moment := clock_timestamp();
    select greatest(0,
               -- A call larger than the whole bucket passes when the bucket is full, and leaves a debt.
               max((least((x ->> 'cost')::float8, b.amount) - waystation_bucket_level(b, moment)) * b.seconds / b.amount),
               max(extract(epoch from p.until - moment)))
    into wait
    from jsonb_array_elements(draws) x
    join guard_bucket b
      on b.tenant_id = x ->> 'tenant' and b.name = x ->> 'name' and b.amount = (x ->> 'amount')::float8
     and b.seconds = (x ->> 'seconds')::float8
    left join guard_pause p on p.tenant_id = b.tenant_id and p.name = b.name;
    if wait < 1e-9 then
        wait := 0;
    end if;
    taken := wait <= patience;
    if taken then
        update guard_bucket b
        set level = waystation_bucket_level(b, moment) - (x ->> 'cost')::float8, at = moment
        from jsonb_array_elements(draws) x
        where b.tenant_id = x ->> 'tenant' and b.name = x ->> 'name' and b.amount = (x ->> 'amount')::float8
          and b.seconds = (x ->> 'seconds')::float8;
    end if;
    select jsonb_agg(floor(waystation_bucket_level(b, moment))::bigint order by x.n)
    into left_over
    from jsonb_array_elements(draws) with ordinality as x (draw, n)
    join guard_bucket b
      on b.tenant_id = x.draw ->> 'tenant' and b.name = x.draw ->> 'name' and b.amount = (x.draw ->> 'amount')::float8
     and b.seconds = (x.draw ->> 'seconds')::float8;
    return jsonb_build_array(taken, wait, left_over);
end
$$;

-- What is in a bucket at a moment.
create function waystation_bucket_level(b guard_bucket, moment timestamptz) returns float8
language sql immutable
return least(b.amount, b.level + greatest(0, extract(epoch from moment - b.at)::float8) * b.amount / b.seconds);

-- Takes one of so many places, or renews it; false if there is none.
create function waystation_guard_enter_place(
    tenant text, of_name text, at_most integer, by_holder text, ttl_s float8
) returns boolean
language plpgsql as $$
begin
    -- Held to the end of the statement. Two names in the same place of the lock table only wait for each other.
    perform pg_advisory_xact_lock(hashtextextended(tenant || '/' || of_name, 7311));
    delete from guard_place where tenant_id = tenant and name = of_name and until <= clock_timestamp();
    if not exists (select from guard_place where tenant_id = tenant and name = of_name and holder = by_holder)
       and (select count(*) from guard_place where tenant_id = tenant and name = of_name) >= at_most then
        return false;
    end if;
    insert into guard_place (tenant_id, name, holder, until)
    values (tenant, of_name, by_holder, clock_timestamp() + make_interval(secs => ttl_s))
    on conflict (tenant_id, name, holder) do update set until = excluded.until;
    return true;
end
$$;

-- Counts a call's outcome; true if the breaker opened or closed by it.
create function waystation_guard_report(
    tenant text, of_target text, ok boolean, is_probe boolean, asked_s float8,
    rate float8, minimum integer, of_window_s float8, cooldown_s float8
) returns boolean
language plpgsql as $$
declare
    moment timestamptz := clock_timestamp();
    this_slice bigint := floor(extract(epoch from moment)::float8 * 20 / of_window_s);
    made bigint;
    bad bigint;
begin
    if not exists (select from guard_breaker where tenant_id = tenant and target = of_target) then
        insert into guard_outcome as o (tenant_id, target, window_s, slice, calls, failed)
        values (tenant, of_target, of_window_s, this_slice, 1, case when ok then 0 else 1 end)
        on conflict (tenant_id, target, window_s, slice) do update
        set calls = o.calls + 1, failed = o.failed + excluded.failed;
        if ok then
            return false;
        end if;
        select sum(calls), sum(failed) into made, bad
        from guard_outcome
        where tenant_id = tenant and target = of_target and window_s = of_window_s and slice > this_slice - 20;
        if made < minimum or bad < rate * made then
            return false;
        end if;
        insert into guard_breaker (tenant_id, target, open_until)
        values (tenant, of_target, moment + make_interval(secs => greatest(cooldown_s, asked_s)))
        on conflict do nothing;
        if found then
            return true;
        end if;
        -- Somebody else has opened it in this moment.
    end if;
    if ok and is_probe then
        delete from guard_breaker where tenant_id = tenant and target = of_target;
        if not found then
            return false;
        end if;
        delete from guard_outcome where tenant_id = tenant and target = of_target;
        return true;
    end if;
    update guard_breaker
    set open_until = case when ok then open_until else greatest(
            open_until, moment + make_interval(secs => greatest(case when is_probe then cooldown_s else 0 end, asked_s))) end,
        probe_until = case when is_probe then null else probe_until end
    where tenant_id = tenant and target = of_target;
    return false;
end
$$;
