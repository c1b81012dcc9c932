-- The guards' ledger: what calls of models and tools came to, for ever; and derived from it what is spent and held on each
-- account, so that a reserve reads one row per account however long the ledger is. Amounts are integers: billionths of a
-- dollar, tokens, calls, milliseconds.

-- What is asked for every call must be quick from the first one on, when nothing is known of the tables yet and a plan that
-- reads all of a tenant's rows looks as good as any. So the keys begin with what tells rows apart, and the functions below
-- compare the tenant so that no index can be used for it alone (`is not distinct from`).

create table guard_account (
    tenant_id   text        not null default 'default',
    -- A digest of what follows.
    account_id  uuid        not null,
    scope       text        not null,
    owner       text        not null,
    unit        text        not null check (unit in ('usd', 'tokens', 'model_calls', 'tool_calls', 'seconds')),
    "window"    text        not null default '',
    spent       bigint      not null default 0,
    -- What open calls are expected to come to, and what they may come to at worst: the sums of guard_hold.
    held        bigint      not null default 0 check (held >= 0),
    at_risk     bigint      not null default 0 check (at_risk >= held),
    created_at  timestamptz not null default clock_timestamp(),
    primary key (account_id, tenant_id)
) with (fillfactor = 50);
-- Not on a column that a reserve changes: its updates stay within their page.
create index guard_account_by_age on guard_account (created_at);
create index guard_account_by_owner on guard_account (tenant_id, scope, owner);

create table guard_hold (
    tenant_id   text        not null default 'default',
    call        text        not null,
    account_id  uuid        not null,
    amount      bigint      not null check (amount >= 0),
    worst       bigint      not null check (worst >= amount),
    -- Whose call it is. `of_run`: this database executed that attempt when the call began.
    thread_id   text        not null,
    run_id      text        not null,
    attempt     integer     not null,
    node        text        not null,
    of_run      boolean     not null,
    expires_at  timestamptz not null,
    created_at  timestamptz not null default clock_timestamp(),
    primary key (call, account_id, tenant_id)
);
create index guard_hold_by_account on guard_hold (account_id);

create table guard_ledger (
    tenant_id         text        not null default 'default',
    -- `<call_id>/<budget>`: several budgets may write of one call.
    call              text        not null,
    call_id           text        not null,
    kind              text        not null check (kind in ('model', 'tool', 'cache_hit', 'saving', 'correction')),
    -- The entry that says what the call cost: one for each call, so that their sum is what providers bill.
    bills             boolean     not null,
    model             text        not null,
    cost_nano_usd     bigint,
    estimate_nano_usd bigint,
    price_version     text        not null,
    usage             jsonb       not null,
    -- What was added to which account: [[account_id, scope, owner, unit, window, amount, tenant], ...].
    spent             jsonb       not null,
    detail            jsonb       not null,
    -- Text and not uuid, without references: programs have ids of their own, and money stays spent when a thread is gone.
    thread_id         text        not null,
    run_id            text        not null,
    attempt           integer     not null,
    node              text        not null,
    namespace         text        not null,
    assistant_id      text        not null,
    graph_id          text        not null,
    user_id           text        not null,
    key_id            text        not null,
    -- By which its writer knows it again, where the answer was lost and it asks once more.
    claim             text        not null,
    created_at        timestamptz not null default clock_timestamp(),
    primary key (call, tenant_id)
);
create unique index guard_ledger_bill on guard_ledger (call_id, tenant_id) where bills;
create index guard_ledger_by_call on guard_ledger (call_id);
create index guard_ledger_by_age on guard_ledger (tenant_id, created_at, call);
create index guard_ledger_by_run on guard_ledger (tenant_id, thread_id, run_id) where run_id <> '';
create index guard_ledger_by_graph on guard_ledger (tenant_id, graph_id, created_at) where graph_id <> '';

-- In PL/pgSQL, which keeps its plans; functions in plain SQL are planned anew for each statement that calls them.

-- Entries are never changed. Who archives old ones says so: set local waystation.archives_ledger = 'on'.
create function waystation_keep_ledger() returns trigger
language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('waystation.archives_ledger', true) = 'on' then
        return old;
    end if;
    raise exception 'the ledger is append-only: write a correction' using errcode = 'insufficient_privilege';
end
$$;
create trigger guard_ledger_append_only
before update or delete on guard_ledger
for each row execute function waystation_keep_ledger();

create table guard_ratio (
    tenant_id   text        not null default 'default',
    model       text        not null,
    ratio       float8      not null,
    primary key (tenant_id, model)
) with (fillfactor = 50);

-- Whether nobody will settle it: its time is over, or the attempt that made it. For single holds; statements that look at
-- all holds of an account say the same with a join, which costs a tenth.
create function waystation_hold_is_over(h guard_hold) returns boolean
language plpgsql as $$
begin
    return h.expires_at <= clock_timestamp() or (h.of_run and not exists (
        select from run r
        where r.tenant_id = h.tenant_id and r.thread_id = h.thread_id::uuid and r.run_id = h.run_id::uuid
          and r.status = 'running' and r.attempt = h.attempt));
end
$$;

-- What became of calls that never came back is not known. Those that died with their attempt were being paid for, as good
-- as certainly: what was expected of them counts as spent. Calls of programs that this database does not execute only end
-- by their time, and count nothing. The ledger names them all, for who compares it with a provider's bill.
create function waystation_note_lost(gone guard_hold[]) returns void
language plpgsql as $$
declare
    lost record;
begin
    for lost in
        select h.tenant_id, h.call, h.thread_id, h.run_id, h.attempt, h.node, h.of_run,
               max(h.amount) filter (where a.unit = 'usd') as expected,
               jsonb_agg(jsonb_build_array(
                   h.account_id, a.scope, a.owner, a.unit, a."window", h.amount, h.tenant_id)) as accounts
        from unnest(gone) h
        join guard_account a on a.tenant_id is not distinct from h.tenant_id and a.account_id = h.account_id
        group by h.tenant_id, h.call, h.thread_id, h.run_id, h.attempt, h.node, h.of_run
    loop
        -- Several budgets may have held for one call, and what one held may be found in pieces: it was paid once.
        if not (lost.of_run and lost.expected is not null and waystation_enter_lost(to_jsonb(lost), true)) then
            perform waystation_enter_lost(to_jsonb(lost), false);
        end if;
        if lost.of_run then
            update guard_account a
            set spent = least(a.spent::numeric + h.amount, 4e18)::bigint
            from unnest(gone) h
            where h.call = lost.call and h.tenant_id is not distinct from lost.tenant_id
              and a.tenant_id is not distinct from h.tenant_id and a.account_id = h.account_id;
        end if;
    end loop;
end
$$;

-- Writes the entry of a lost call; false where somebody else has written what the call cost.
create function waystation_enter_lost(lost jsonb, as_bill boolean) returns boolean
language plpgsql as $$
begin
    insert into guard_ledger (
        tenant_id, call, call_id, kind, bills, model, cost_nano_usd, estimate_nano_usd, price_version, usage, spent, detail,
        thread_id, run_id, attempt, node, namespace, assistant_id, graph_id, user_id, key_id,
        claim
    )
    values (
        lost ->> 'tenant_id', concat(lost ->> 'call', '#lost-', lost #>> '{accounts,0,0}'), split_part(lost ->> 'call', '/', 1),
        'correction', as_bill, '', case when as_bill then (lost ->> 'expected')::bigint end, (lost ->> 'expected')::bigint, '',
        '{}', case when (lost ->> 'of_run')::boolean then lost -> 'accounts' else '[]' end,
        jsonb_build_object('outcome', 'lost', 'call', lost -> 'call', 'accounts', lost -> 'accounts'),
        lost ->> 'thread_id', lost ->> 'run_id', (lost ->> 'attempt')::integer, lost ->> 'node', '', '', '', '', '', ''
    )
    on conflict do nothing;
    return found;
end
$$;

-- A call that was taken to be lost has come back: what was counted for it is taken back, and what it
-- cost is told in the place of what was expected.
create function waystation_take_back_lost(op jsonb) returns void
language plpgsql as $$
declare
    one guard_ledger;
begin
    for one in
        select * from guard_ledger l
        where l.tenant_id is not distinct from op ->> 'tenant' and l.call_id = op ->> 'call_id'
          and l.detail ->> 'outcome' = 'lost' and l.detail ->> 'call' = op ->> 'call' and l.spent <> '[]'
    loop
        insert into guard_ledger (
            tenant_id, call, call_id, kind, bills, model, cost_nano_usd, estimate_nano_usd, price_version, usage, spent, detail,
            thread_id, run_id, attempt, node, namespace, assistant_id, graph_id, user_id, key_id,
            claim
        )
        select one.tenant_id, one.call || '#found', one.call_id, 'correction', false, '',
               case when one.bills then coalesce((op ->> 'cost')::bigint, 0) - one.cost_nano_usd end, null, '', '{}',
               (
                   select jsonb_agg(jsonb_set(x, '{5}', to_jsonb(-(x ->> 5)::bigint)))
                   from jsonb_array_elements(one.spent) x
               ),
               jsonb_build_object('outcome', 'found', 'call', one.call), one.thread_id, one.run_id, one.attempt, one.node,
               '', '', '', '', '', ''
        on conflict do nothing;
        if found then
            update guard_account a
            set spent = a.spent - (x ->> 5)::bigint
            from jsonb_array_elements(one.spent) x
            where a.tenant_id is not distinct from x ->> 6 and a.account_id = (x ->> 0)::uuid;
        end if;
    end loop;
end
$$;

-- Gives holds back that were deleted. The caller has locked their accounts.
create function waystation_give_back(gone guard_hold[]) returns void
language plpgsql as $$
begin
    update guard_account a
    set held = a.held - g.amount, at_risk = a.at_risk - g.worst
    from (
        select h.tenant_id, h.account_id, sum(h.amount)::bigint as amount, sum(h.worst)::bigint as worst
        from unnest(gone) h
        group by h.tenant_id, h.account_id
    ) g
    where a.tenant_id is not distinct from g.tenant_id and a.account_id = g.account_id;
end
$$;

-- [[spent, held, at_risk], ...] of an array of accounts, in its order.
create function waystation_balances_of(accounts jsonb) returns jsonb
language plpgsql as $$
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_array(
            coalesce(a.spent, 0), coalesce(a.held, 0), coalesce(a.at_risk, 0)) order by x.n), '[]')
        from jsonb_array_elements(accounts) with ordinality as x (account, n)
        left join guard_account a
          on a.tenant_id is not distinct from x.account ->> 'tenant' and a.account_id = (x.account ->> 'id')::uuid
    );
end
$$;

-- The number of the first hold that does not fit, from 0.
create function waystation_first_misfit(holds jsonb) returns integer
language plpgsql as $$
begin
    return (
        select (x.n - 1)::integer
        from jsonb_array_elements(holds) with ordinality as x (hold, n)
        join guard_account a on a.tenant_id is not distinct from x.hold ->> 'tenant' and a.account_id = (x.hold ->> 'id')::uuid
        where a.spent::numeric + a.at_risk + (x.hold ->> 'amount')::bigint > (x.hold ->> 'limit')::bigint
        order by x.n
        limit 1
    );
end
$$;

create function waystation_guard_reserve(op jsonb) returns jsonb
language plpgsql as $$
declare
    misfit integer;
    gone guard_hold[];
    executed boolean;
    changed integer;
begin
    -- The fence: an attempt that is over spends nothing. A run that is not here is a program's own.
    if (op ->> 'of_run')::boolean then
        select r.status = 'running' and r.attempt = (op ->> 'attempt')::integer into executed
        from run r
        where r.tenant_id = op ->> 'tenant' and r.thread_id = (op ->> 'thread')::uuid and r.run_id = (op ->> 'run')::uuid;
        if not executed then
            return jsonb_build_object('is_over', true);
        end if;
    end if;
    executed := coalesce(executed, false);
    with old as (
        delete from guard_hold h
        where h.call = op ->> 'call' and waystation_hold_is_over(h)
          and h.tenant_id in (select x ->> 'tenant' from jsonb_array_elements(op -> 'holds') x)
        returning h as taken
    )
    select array_agg(old.taken) into gone from old;
    if gone is not null then
        perform waystation_give_back(gone);
    end if;
    if exists (
        select from guard_hold h
        where h.call = op ->> 'call'
          and h.tenant_id in (select x ->> 'tenant' from jsonb_array_elements(op -> 'holds') x)
    ) then
        return jsonb_build_object('balances', waystation_balances_of(op -> 'holds'));
    end if;
    misfit := waystation_first_misfit(op -> 'holds');
    if misfit is not null then
        with old as (
            delete from guard_hold h
            using (
                select o.tenant_id, o.call, o.account_id
                from jsonb_array_elements(op -> 'holds') x
                join guard_hold o on o.tenant_id is not distinct from x ->> 'tenant' and o.account_id = (x ->> 'id')::uuid
                left join run r
                  on r.tenant_id = o.tenant_id and r.thread_id = case when o.of_run then o.thread_id::uuid end
                 and r.run_id = case when o.of_run then o.run_id::uuid end and r.status = 'running' and r.attempt = o.attempt
                where o.expires_at <= clock_timestamp() or (o.of_run and r.run_id is null)
            ) o
            where h.tenant_id is not distinct from o.tenant_id and h.call = o.call and h.account_id = o.account_id
            returning h as taken
        )
        select array_agg(old.taken) into gone from old;
        if gone is not null then
            perform waystation_give_back(gone);
            perform waystation_note_lost(gone);
            misfit := waystation_first_misfit(op -> 'holds');
        end if;
    end if;
    if misfit is not null then
        return jsonb_build_object('refused', misfit, 'balances', waystation_balances_of(op -> 'holds'));
    end if;
    with made as (
        insert into guard_hold (
            tenant_id, call, account_id, amount, worst, thread_id, run_id, attempt, node, of_run, expires_at
        )
        select x ->> 'tenant', op ->> 'call', (x ->> 'id')::uuid, max((x ->> 'amount')::bigint),
               max(greatest((x ->> 'amount')::bigint, (x ->> 'worst')::bigint)), op ->> 'thread', op ->> 'run',
               (op ->> 'attempt')::integer, op ->> 'node', executed and x ->> 'tenant' = op ->> 'tenant',
               clock_timestamp() + make_interval(secs => (op ->> 'ttl')::float8)
        from jsonb_array_elements(op -> 'holds') x
        group by x ->> 'tenant', x ->> 'id'
        returning tenant_id, account_id, amount, worst
    )
    update guard_account a
    set held = a.held + made.amount, at_risk = a.at_risk + made.worst
    from made
    where a.tenant_id is not distinct from made.tenant_id and a.account_id = made.account_id;
    get diagnostics changed = row_count;
    if changed <> (select count(distinct x ->> 'id') from jsonb_array_elements(op -> 'holds') x) then
        raise exception 'an account was thrown away in this moment' using errcode = 'serialization_failure';
    end if;
    return jsonb_build_object('balances', waystation_balances_of(op -> 'holds'));
end
$$;

create function waystation_guard_release(op jsonb) returns jsonb
language plpgsql as $$
declare
    gone guard_hold[];
begin
    with old as (
        delete from guard_hold h
        where h.tenant_id is not distinct from op ->> 'tenant' and h.call = op ->> 'call'
        returning h as taken
    )
    select array_agg(old.taken) into gone from old;
    if gone is not null then
        perform waystation_give_back(gone);
    else
        perform waystation_take_back_lost(op);
    end if;
    return jsonb_build_object('balances', '[]'::jsonb);
end
$$;

-- Writes an entry; false if it is there already. Only the first budget that writes of a model call says what it cost.
create function waystation_guard_enter(op jsonb, as_bill boolean) returns boolean
language plpgsql as $$
begin
    insert into guard_ledger (
        tenant_id, call, call_id, kind, bills, model, cost_nano_usd, estimate_nano_usd, price_version, usage, spent, detail,
        thread_id, run_id, attempt, node, namespace, assistant_id, graph_id, user_id, key_id,
        claim
    )
    select op ->> 'tenant', op ->> 'call', op ->> 'call_id', op ->> 'kind', as_bill, op ->> 'model',
           case when as_bill or op ->> 'kind' <> 'model' then (op ->> 'cost')::bigint end,
           (op ->> 'estimate')::bigint, op ->> 'price_version', op -> 'usage',
           (
               select coalesce(jsonb_agg(jsonb_build_array(
                   x ->> 'id', x ->> 'scope', x ->> 'owner', x ->> 'unit', x ->> 'window', x -> 'amount', x ->> 'tenant')), '[]')
               from jsonb_array_elements(op -> 'spent') x
           ),
           op -> 'detail', op ->> 'thread', op ->> 'run', (op ->> 'attempt')::integer, op ->> 'node', op ->> 'namespace',
           op ->> 'assistant', op ->> 'graph', op ->> 'user', op ->> 'key', op ->> 'claim'
    on conflict do nothing;
    return found;
end
$$;

create function waystation_guard_settle(op jsonb) returns jsonb
language plpgsql as $$
declare
    is_bill boolean := op ->> 'kind' = 'model';
    is_new boolean;
    gone guard_hold[];
begin
    is_new := waystation_guard_enter(op, is_bill);
    if not is_new and is_bill then
        is_bill := false;
        is_new := waystation_guard_enter(op, false);
    end if;
    if not is_new then
        if exists (
            select from guard_ledger
            where tenant_id is not distinct from op ->> 'tenant' and call = op ->> 'call' and claim = op ->> 'claim'
        ) then
            return jsonb_build_object('balances', waystation_balances_of(op -> 'spent'));
        end if;
        return jsonb_build_object('balances', '[]'::jsonb);
    end if;
    perform waystation_take_back_lost(op);
    with old as (
        delete from guard_hold h
        where h.call = op ->> 'call' and h.tenant_id in (
            select op ->> 'tenant' union select x ->> 'tenant' from jsonb_array_elements(op -> 'spent') x)
        returning h as taken
    )
    select array_agg(old.taken) into gone from old;
    if gone is not null then
        perform waystation_give_back(gone);
    end if;
    -- A provider's mistake may be any number; it must not make the account useless.
    update guard_account a
    set spent = least(greatest(a.spent::numeric + s.amount, -4e18), 4e18)::bigint
    from (
        select x ->> 'tenant' as tenant_id, (x ->> 'id')::uuid as account_id, sum((x ->> 'amount')::bigint) as amount
        from jsonb_array_elements(op -> 'spent') x
        group by 1, 2
    ) s
    where a.tenant_id is not distinct from s.tenant_id and a.account_id = s.account_id and s.amount <> 0;
    return jsonb_build_object(
        'balances', waystation_balances_of(op -> 'spent'),
        'learned', case when is_bill and (op ->> 'estimate')::bigint > 0 and op ->> 'cost' is not null then
            jsonb_build_array(op ->> 'tenant', op ->> 'model', (op ->> 'cost')::float8 / (op ->> 'estimate')::float8) end);
end
$$;

-- Brings a model's ratio nearer to what was seen: a fifth of the way by each call.
create function waystation_learn_ratio(tenant text, of_model text, sightings float8[]) returns float8
language plpgsql as $$
declare
    kept float8;
    one float8;
begin
    insert into guard_ratio (tenant_id, model, ratio) values (tenant, of_model, 1.0) on conflict do nothing;
    select ratio into kept from guard_ratio where tenant_id = tenant and model = of_model for no key update;
    foreach one in array sightings loop
        kept := kept + 0.2 * (least(one, 1e6) - kept);
    end loop;
    update guard_ratio set ratio = kept where tenant_id = tenant and model = of_model;
    return kept;
end
$$;

-- What a process wants of the ledger at one moment, in one transaction: [{"do": "reserve" | "settle" | "release", ...}].
-- Returns {"answers": [...], "ratios": [[tenant, model, ratio], ...], "now": seconds}.
--
-- All accounts are locked first, in one order for everybody, then the models' ratios in one order: nobody waits in a circle.
create function waystation_guard_work(ops jsonb) returns jsonb
language plpgsql
-- A handful of rows by their keys, whatever the statistics say of the tables: no plan here may read one whole.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    op jsonb;
    answers jsonb := '[]';
    answer jsonb;
    ratios jsonb := '[]';
    seen record;
    now_known float8;
begin
    insert into guard_account (tenant_id, account_id, scope, owner, unit, "window")
    select distinct on (1, 2)
           x ->> 'tenant', (x ->> 'id')::uuid, x ->> 'scope', x ->> 'owner', x ->> 'unit', x ->> 'window'
    from jsonb_array_elements(ops) o,
         jsonb_array_elements(coalesce(o -> 'holds', '[]') || coalesce(o -> 'spent', '[]')) x
    where not exists (
        select from guard_account a where a.tenant_id is not distinct from x ->> 'tenant' and a.account_id = (x ->> 'id')::uuid)
    order by 1, 2
    on conflict do nothing;
    perform from guard_account a
    join (
        select x ->> 'tenant' as tenant_id, (x ->> 'id')::uuid as account_id
        from jsonb_array_elements(ops) o,
             jsonb_array_elements(coalesce(o -> 'holds', '[]') || coalesce(o -> 'spent', '[]')) x
        union
        select h.tenant_id, h.account_id
        from jsonb_array_elements(ops) o
        cross join lateral (
            select one.tenant_id, one.account_id
            from guard_hold one
            where one.tenant_id is not distinct from o ->> 'tenant' and one.call = o ->> 'call'
            offset 0  -- for each operation, never for all holds
        ) h
        where o ->> 'do' <> 'reserve'
        union
        select x ->> 6, (x ->> 0)::uuid
        from jsonb_array_elements(ops) o
        cross join lateral (
            select one.spent
            from guard_ledger one
            where one.tenant_id is not distinct from o ->> 'tenant' and one.call_id = o ->> 'call_id'
              and one.detail ->> 'outcome' = 'lost'
            offset 0
        ) l
        cross join lateral jsonb_array_elements(l.spent) x
        where o ->> 'do' <> 'reserve'
    ) w on w.tenant_id = a.tenant_id and w.account_id = a.account_id
    order by a.tenant_id, a.account_id
    for no key update of a;
    for op in select value from jsonb_array_elements(ops) loop
        answer := case op ->> 'do'
            when 'reserve' then waystation_guard_reserve(op)
            when 'settle' then waystation_guard_settle(op)
            when 'release' then waystation_guard_release(op)
        end;
        answers := answers || jsonb_build_array(answer);
    end loop;
    for seen in
        select x.answer -> 'learned' ->> 0 as tenant_id, x.answer -> 'learned' ->> 1 as model,
               array_agg((x.answer -> 'learned' ->> 2)::float8 order by x.n) as sightings
        from jsonb_array_elements(answers) with ordinality as x (answer, n)
        where x.answer ->> 'learned' is not null
        group by 1, 2
        order by 1, 2
    loop
        ratios := ratios || jsonb_build_array(jsonb_build_array(
            seen.tenant_id, seen.model, waystation_learn_ratio(seen.tenant_id, seen.model, seen.sightings)));
    end loop;
    now_known := extract(epoch from clock_timestamp());
    return jsonb_build_object('answers', answers, 'ratios', ratios, 'now', now_known);
end
$$;

-- Gives back what nobody will settle, of up to `at_most` holds and all others of their accounts; how many those were.
create function waystation_sweep_holds(at_most integer) returns integer
language plpgsql as $$
declare
    accounts uuid[];
    gone guard_hold[];
begin
    select array_agg(distinct h.account_id) into accounts
    from (
        select o.account_id
        from guard_hold o
        left join run r
          on r.tenant_id = o.tenant_id and r.thread_id = case when o.of_run then o.thread_id::uuid end
         and r.run_id = case when o.of_run then o.run_id::uuid end and r.status = 'running' and r.attempt = o.attempt
        where o.expires_at <= clock_timestamp() or (o.of_run and r.run_id is null)
        limit at_most
    ) h;
    if accounts is null then
        return 0;
    end if;
    perform from guard_account a
    where a.account_id = any (accounts)
    order by a.tenant_id, a.account_id
    for no key update of a;
    with old as (
        delete from guard_hold h
        using (
            select o.tenant_id, o.call, o.account_id
            from guard_hold o
            left join run r
              on r.tenant_id = o.tenant_id and r.thread_id = case when o.of_run then o.thread_id::uuid end
             and r.run_id = case when o.of_run then o.run_id::uuid end and r.status = 'running' and r.attempt = o.attempt
            where o.account_id = any (accounts) and (o.expires_at <= clock_timestamp() or (o.of_run and r.run_id is null))
        ) o
        where h.tenant_id is not distinct from o.tenant_id and h.call = o.call and h.account_id = o.account_id
        returning h as taken
    )
    select array_agg(old.taken) into gone from old;
    if gone is null then
        return 0;
    end if;
    perform waystation_give_back(gone);
    perform waystation_note_lost(gone);
    return cardinality(gone);
end
$$;
