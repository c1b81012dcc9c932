-- What clients see of an assistant.

create function waystation_assistant(a assistant) returns json
language sql stable
return json_build_object(
    'assistant_id', a.assistant_id,
    'graph_id', a.graph_id,
    'config', a.config,
    'context', a.context,
    'metadata', a.metadata,
    'name', a.name,
    'created_at', waystation_time(a.created_at),
    'updated_at', waystation_time(a.updated_at),
    'version', a.version,
    'description', a.description);
