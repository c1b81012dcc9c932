-- What a Postgres server says of itself, for those who check whether it is fit to serve from. Of no table of ours.

-- name: facts
-- Connections that are left to us at most, who we are, whether what is committed survives a power cut, and its clock.
select
    least(
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0),
        (select case when datconnlimit < 0 then 2147483647 else datconnlimit end
         from pg_database where datname = current_database()),
        (select case when rolconnlimit < 0 then 2147483647 else rolconnlimit end
         from pg_roles where rolname = current_user)
    ),
    (select rolsuper from pg_roles where rolname = current_user),
    array(
        select name from pg_settings
        where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off'
        order by name
    ),
    clock_timestamp();
