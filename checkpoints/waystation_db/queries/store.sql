-- The long-term store is LangGraph's own (tables and statements); only what surrounds it is here.

-- name: has_vectors
-- Whether this server can search by vectors, installed in this database or not yet.
select exists (select from pg_available_extensions where name = 'vector')

-- name: lock_setup
-- One process at a time makes the vector index; held until the transaction ends. False: somebody else is at it. Who waits
-- must not keep a connection for that, or behind a pooler none is left for the one that works.
select pg_try_advisory_xact_lock(hashtext('waystation store setup'))
