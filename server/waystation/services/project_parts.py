"""What a project's configuration says about the store and the checkpointer, made real."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from langgraph.store.base import TTLConfig

from waystation.catalog import Project, store_index
from waystation.errors import ConfigError
from waystation_db.errors import StoreIndexChanged
from waystation_db.pool import Database
from waystation_db.serde import CheckpointSerde
from waystation_db.store import PostgresStore, open_store


def project_serde(project: Project) -> CheckpointSerde:
    """The serializer of checkpoints, with the types that `checkpointer.serde` lists."""
    serde = project.checkpointer.serde if project.checkpointer else None
    msgpack = serde.allowed_msgpack_modules if serde else None
    json = serde.allowed_json_modules if serde else None
    return CheckpointSerde(
        allowed_msgpack_modules=[_class_name(name) for name in msgpack] if isinstance(msgpack, tuple) else (),
        # Its JSON form names the parts of a module one by one.
        allowed_json_modules=[(*_class_name(name)[0].split("."), name[-1]) for name in json]
        if isinstance(json, tuple)
        else (),
    )


def _class_name(name: tuple[str, ...]) -> tuple[str, str]:
    """Module and class, however many parts the module was written in."""
    return ".".join(name[:-1]), name[-1]


@contextlib.asynccontextmanager
async def open_project_store(db: Database, project: Project) -> AsyncGenerator[PostgresStore]:
    """The long-term store as `store` configures it. Runs the project's code when it embeds by a function of its own.

    Raises:
        ConfigError: the embedding function cannot be loaded, or its vectors do not go with those in the database.
    """
    index = await store_index(project)
    async with contextlib.AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(open_store(db, index=index, ttl=_ttl(project)))
        except StoreIndexChanged as error:
            raise ConfigError(str(error)) from None
        yield store


def _ttl(project: Project) -> TTLConfig | None:
    keys = project.store.ttl if project.store else None
    if keys is None:
        return None
    ttl: TTLConfig = {"refresh_on_read": keys.refresh_on_read}
    if keys.default_ttl is not None:
        ttl["default_ttl"] = keys.default_ttl
    return ttl
