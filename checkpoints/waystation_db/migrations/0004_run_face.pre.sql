-- A run as clients see it. A function, so that creating, reading and listing cannot differ.
create function waystation_run(r run) returns json
language sql stable
return json_build_object(
    'run_id', r.run_id,
    'thread_id', r.thread_id,
    'assistant_id', r.assistant_id,
    'metadata', r.metadata,
    'status', r.status,
    'kwargs', r.kwargs,
    'multitask_strategy', r.multitask_strategy,
    'created_at', waystation_time(r.created_at),
    'updated_at', waystation_time(r.updated_at),
    'langsmith_session_name', null
);
