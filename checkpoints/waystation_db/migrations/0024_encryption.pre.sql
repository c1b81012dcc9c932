-- The keys that values of this database were encrypted with, by their ids: a server that is started without them knows
-- that it cannot read everything, and says so instead of showing what it cannot read.

create table encryption_key (
    key_id        text        primary key,
    first_used_at timestamptz not null default clock_timestamp()
);
