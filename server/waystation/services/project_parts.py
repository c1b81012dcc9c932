"""What a project's configuration says about the store and the checkpointer, made real."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from langgraph.store.base import BaseStore
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from waystation.catalog import Project, store_index
from waystation_db.pool import Database
from waystation_db.serde import CheckpointSerde


def project_serde(project: Project) -> CheckpointSerde:
    """The serializer of checkpoints, with the types that `checkpointer.serde` lists."""
    serde = project.checkpointer.serde if project.checkpointer else None
    msgpack = serde.allowed_msgpack_modules if serde else None
    json = serde.allowed_json_modules if serde else None
    return CheckpointSerde(
        allowed_msgpack_modules=[(name[0], name[1]) for name in msgpack] if isinstance(msgpack, tuple) else (),
        allowed_json_modules=[(name[0], name[1]) for name in json] if isinstance(json, tuple) else (),
    )


@contextlib.asynccontextmanager
async def open_project_store(db: Database, project: Project) -> AsyncGenerator[BaseStore]:
    """The store that `store` configures."""
    kwargs = {"autocommit": True, "prepare_threshold": None, "row_factory": dict_row}
    async with AsyncConnectionPool(db.conninfo, min_size=1, max_size=4, kwargs=kwargs) as pool:
        yield AsyncPostgresStore(pool)  # pyright: ignore
