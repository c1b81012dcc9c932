-- Assistants may be encrypted at rest from now on: every process that is left can read them so. Processes look for the
-- record of this file whenever they write an assistant, and so does `waystation encrypt`.

comment on column assistant.config is 'its members are sealed one by one where encryption is on';
comment on column assistant.context is 'sealed where encryption is on';
comment on column assistant_version.config is 'as assistant.config';
comment on column assistant_version.context is 'as assistant.context';
comment on column run.assistant_config is 'as assistant.config';
comment on column run.assistant_context is 'as assistant.context';
