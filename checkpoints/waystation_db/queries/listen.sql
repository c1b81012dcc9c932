-- name: listen
-- Makes the session receive what is notified on a channel. A channel is an identifier and cannot be a parameter.
listen {channel};

-- name: backend
-- Which process of the server this is; a pooler tells its clients another number.
select pg_backend_pid();
