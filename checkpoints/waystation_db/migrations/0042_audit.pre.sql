-- The audit log: one hash chain for each tenant. hash(n) = sha256(hash(n-1) || tenant, seq, microseconds || entry); the
-- first record follows 32 zero bytes. `json` keeps the text of an entry byte for byte, which the hash is made of.

create table audit_record (
    tenant_id  text        not null,
    seq        bigint      not null check (seq > 0),
    at         timestamptz not null,
    entry      json        not null,
    action     text        not null generated always as (entry ->> 'action') stored,
    prev       bytea       not null check (length(prev) = 32),
    hash       bytea       not null check (length(hash) = 32),
    primary key (tenant_id, seq)
);
create index audit_record_by_action on audit_record (tenant_id, action text_pattern_ops, seq);

-- Where each chain ends. Its row is what writers of all processes wait for in turn.
create table audit_head (
    tenant_id  text    not null primary key,
    seq        bigint  not null,
    hash       bytea   not null check (length(hash) = 32)
);

create function waystation_audit_append(tenant text, entries text[]) returns bigint
language plpgsql as $$
declare
    head audit_head;
    one text;
    moment timestamptz;
begin
    insert into audit_head (tenant_id, seq, hash) values (tenant, 0, decode(repeat('00', 32), 'hex'))
    on conflict do nothing;
    select * into head from audit_head where tenant_id = tenant for update;
    foreach one in array entries loop
        moment := clock_timestamp();
        insert into audit_record (tenant_id, seq, at, entry, prev, hash)
        values (tenant, head.seq + 1, moment, one::json, head.hash, sha256(
            head.hash
            || convert_to(format(E'%s\n%s\n%s\n', tenant, head.seq + 1, (extract(epoch from moment) * 1000000)::bigint), 'UTF8')
            || convert_to(one, 'UTF8')))
        returning audit_record.seq, audit_record.hash into head.seq, head.hash;
    end loop;
    update audit_head set seq = head.seq, hash = head.hash where tenant_id = tenant and seq < head.seq;
    return head.seq;
end
$$;

-- Nobody changes what was written, as far as a role can be kept from it: the owner of a table can drop its triggers.
create function waystation_audit_keep() returns trigger
language plpgsql as $$
begin
    if tg_op = 'UPDATE' and tg_table_name = 'audit_head' and new.seq > old.seq and new.tenant_id = old.tenant_id then
        return new;
    end if;
    raise exception 'the audit log is append-only' using errcode = 'restrict_violation';
end
$$;

create trigger audit_record_kept before update or delete on audit_record
for each row execute function waystation_audit_keep();
create trigger audit_record_not_emptied before truncate on audit_record
for each statement execute function waystation_audit_keep();
create trigger audit_head_kept before update or delete on audit_head
for each row execute function waystation_audit_keep();
create trigger audit_head_not_emptied before truncate on audit_head
for each statement execute function waystation_audit_keep();
