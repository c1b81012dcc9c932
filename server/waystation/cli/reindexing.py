"""`waystation reindex`: make the vectors of the store anew, with the `store.index` that is configured now."""

from __future__ import annotations

import asyncio
from pathlib import Path

from waystation.catalog import Project, store_index
from waystation.catalog.project import configure
from waystation.cli.failures import UsageError
from waystation.cli.terminal import say
from waystation.config import Settings
from waystation.process import database_uri
from waystation.services.encryption import on_this_loop, open_cipher
from waystation_db import store_reindex
from waystation_db.pool import Database


def run(config: Path | None, *, all_items: bool, resume: bool) -> None:
    """Throw the vectors away and make them anew; with `resume` only make those that wait from before.

    Raises:
        ConfigError: no DATABASE_URI, or an embedding function that cannot be loaded. UsageError: no `store.index`.
        DatabaseUnavailable: Postgres does not answer.
    """
    settings, project = configure(config, root=Path.cwd())
    asyncio.run(_reindex(settings, project, all_items=all_items, resume=resume))


async def _reindex(settings: Settings, project: Project, *, all_items: bool, resume: bool) -> None:
    index = await store_index(project)
    if index is None:
        raise UsageError("there is nothing to index with: langgraph.json has no store.index")
    async with Database(database_uri(settings), max_size=4, name="waystation-cli", prepare=settings.prepare) as db:
        db.cipher = on_this_loop(await open_cipher(settings, project, db))
        if resume:
            index, space = await store_reindex.prepare(db, index)
        else:
            index, space = await store_reindex.begin(db, index, all_items=all_items)
        total = await store_reindex.left(db)
        say(f"{total} items wait for their vectors; servers with this configuration may start.")
        done = 0
        async for count in store_reindex.go_on(db, index, space):
            done += count
            say(f"{done} of {total}")
    say("Every vector is made.")
