-- The audit log's retention: a verified beginning of a tenant's chain may go, and an anchor says what stood there.
-- Verification goes on from the last anchor, which a record of the chain itself (`audit.pruned`) has to tell of, too.

create table audit_anchor (
    tenant_id  text        not null,
    -- The last record that was removed, and its hash: what the first record that is left follows.
    seq        bigint      not null check (seq > 0),
    hash       bytea       not null check (length(hash) = 32),
    removed    bigint      not null check (removed > 0),
    at         timestamptz not null default clock_timestamp(),
    made_by    text        not null,
    primary key (tenant_id, seq)
);

-- As in 0042; and records at or before an anchor may be deleted.
create or replace function waystation_audit_keep() returns trigger
language plpgsql as $$
begin
    if tg_op = 'UPDATE' and tg_table_name = 'audit_head' and new.seq > old.seq and new.tenant_id = old.tenant_id then
        return new;
    end if;
    if tg_op = 'DELETE' and tg_table_name = 'audit_record' then
        if exists (select from audit_anchor a where a.tenant_id = old.tenant_id and a.seq >= old.seq) then
            return old;
        end if;
    end if;
    raise exception 'the audit log is append-only' using errcode = 'restrict_violation';
end
$$;

create trigger audit_anchor_kept before update or delete on audit_anchor
for each row execute function waystation_audit_keep();
create trigger audit_anchor_not_emptied before truncate on audit_anchor
for each statement execute function waystation_audit_keep();

-- Removes the records up to `upto` (whose hash is `digest`) where every one from the last anchor (`since`, 0 for none)
-- on is there and follows the one before it; leaves an anchor, and appends `note` to the chain. Answers how many went,
-- or null where somebody else has pruned since. Writers wait for its last statement only.
create function waystation_audit_prune(tenant text, since bigint, upto bigint, digest bytea, made_by text, note text)
returns bigint
language plpgsql as $$
declare
    anchor audit_anchor;
    sound bigint;
    gone bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('waystation audit prune ' || tenant, 0));
    select * into anchor from audit_anchor a where a.tenant_id = tenant order by a.seq desc limit 1;
    if coalesce(anchor.seq, 0) <> since then
        return null;
    end if;
    select count(*) into sound
    from (
        select r.*, lag(r.hash, 1, coalesce(anchor.hash, decode(repeat('00', 32), 'hex'))) over (order by r.seq) as before,
               since + row_number() over (order by r.seq) as place
        from audit_record r
        where r.tenant_id = tenant and r.seq <= upto
    ) r
    where r.seq = r.place and r.prev = r.before and (r.seq < upto or r.hash = digest) and r.hash = sha256(
        r.prev
        || convert_to(format(E'%s\n%s\n%s\n', tenant, r.seq, (extract(epoch from r.at) * 1000000)::bigint), 'UTF8')
        || convert_to(r.entry::text, 'UTF8'));
    if sound <> upto - since then
        raise exception 'the audit log of % is not whole up to record %: nothing was removed', tenant, upto
            using errcode = 'check_violation';
    end if;
    insert into audit_anchor (tenant_id, seq, hash, removed, made_by) values (tenant, upto, digest, sound, made_by);
    delete from audit_record r where r.tenant_id = tenant and r.seq <= upto;
    get diagnostics gone = row_count;
    if gone <> sound then
        raise exception 'the audit log of % changed while it was pruned: nothing was removed', tenant
            using errcode = 'check_violation';
    end if;
    perform waystation_audit_append(tenant, array[note]);
    return gone;
end
$$;
