-- What a project's own function says of a thread's runs: -5 runs first, 5 last; null: it was not asked yet. Runs keep
-- their own copy, turned round, in run.priority. The constraint is not checked against old rows, which have null.
alter table thread add column if not exists priority smallint;
alter table thread add constraint thread_priority check (priority between -5 and 5) not valid;
