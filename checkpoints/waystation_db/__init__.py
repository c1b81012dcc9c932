"""Everything of Waystation that talks to Postgres: state machine, SQL, migrations, checkpointer and store."""
