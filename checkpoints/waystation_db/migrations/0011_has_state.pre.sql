-- Whether a thread has a state, for statements that have locked the thread: volatile, so that it also sees what was
-- committed while they waited for the lock.
create function waystation_has_state(thread uuid) returns boolean
language plpgsql volatile as $$
begin
    return exists (select from checkpoints where checkpoints.thread_id = thread::text);
end
$$;
