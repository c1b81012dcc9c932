"""Whether a backup can be restored by this version into this database: migrations, columns, types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection

from waystation_db import migrate
from waystation_db.backup_format import Manifest, Schema
from waystation_db.backup_reading import connected
from waystation_db.backup_tables import Column, first_row
from waystation_db.errors import BackupRefused
from waystation_db.migration_plan import described
from waystation_db.sql import load

_q = load("backup")


def refuse_foreign(manifest: Manifest) -> None:
    """Raise BackupRefused for a schema that this version does not know, or knows to have been rebuilt since.

    `pre` migrations that the backup lacks are no obstacle: they bear an older process that writes beside them, and its
    rows are what the backup has. Nor are `post` migrations that change no table; the others are.
    """
    if complaint := complaint_about(manifest.schema):
        raise BackupRefused(f"{complaint} (it was made by waystation {manifest.version})")


def complaint_about(schema: Schema) -> str | None:
    """Why rows of this schema cannot be put into that of this version; None if they can."""
    known = {one.name: one for one in migrate.migrations()}
    if unknown := sorted(schema.migrations.keys() - known.keys()):
        return f"the backup is of a newer schema: this version does not know {', '.join(unknown)}"
    if other := sorted(name for name, checksum in schema.migrations.items() if known[name].checksum != checksum):
        return f"the backup is of another schema: its {', '.join(other)} is not the one of this version"
    newest = (len(AsyncPostgresSaver.MIGRATIONS) - 1, len(AsyncPostgresStore.MIGRATIONS) - 1)
    if schema.checkpoints > newest[0] or schema.store > newest[1]:
        return "the backup is of a newer langgraph-checkpoint-postgres"
    missing = [one for one in known.values() if one.phase == "post" and one.name not in schema.migrations]
    rebuilt = sorted(one.name for one in missing if described(one).effects)
    if rebuilt:
        return f"the backup is from before {', '.join(rebuilt)}: restore it with the version that made it, then migrate"
    return None


async def refuse_early(conn: AsyncConnection[Any], schema: Schema) -> None:
    """Raise BackupRefused for rows from after a `post` migration that this database awaits: processes that still run
    beside it may not understand them."""
    applied, *_ = await migrate.applied(conn)
    if awaited := sorted(n for n in schema.migrations.keys() - applied.keys() if n.endswith(".post")):
        raise BackupRefused(
            f"the backup is from after {', '.join(awaited)}, which this database awaits: run `waystation migrate` "
            "here first, when no process of the version before is left"
        )


async def prepare_schema(conninfo: str) -> None:
    """Migrate a database in which nothing is; any other must have been. Raises MigrationError, DatabaseUnavailable."""
    async with connected(conninfo) as conn:
        empty = not any(await first_row(conn, migrate.EXISTING_TABLES))
    if empty:
        await migrate.migrate(conninfo)
    else:
        await migrate.check(conninfo)


def check_columns(manifest: Manifest, here: Mapping[str, tuple[Column, ...]]) -> None:
    """Raise BackupRefused when a column of the backup is not here, or is of another type."""
    for name, columns in manifest.columns.items():
        types = {column.name: column.type for column in here.get(name, ())}
        for column in columns:
            if types.get(column.name) != column.type:
                found = types.get(column.name, "not there")
                raise BackupRefused(f"{name}.{column.name} is {column.type} in the backup, and {found} in the database")
