"""The server's side of the guards: their ports on Postgres and Redis, the project's policy, the kill switch."""
