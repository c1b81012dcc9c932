"""Backups across a `post` migration: taken where rows mean the same before and after it, refused where they do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from backup_world import command, count, tried
from encryption_world import MARK, WAYS, assistant_is_read, assistant_runs, client_of, places_of, serving
from encryption_world import use_an_assistant as an_assistant
from raw_storage import raw_tables
from waystation_db import migrate
from waystation_db.assistant_sealing import SWITCH
from waystation_db.backup_fitting import complaint_about
from waystation_db.backup_format import Schema

pytestmark = pytest.mark.anyio


async def made_of(database_uri: str) -> tuple[str, str]:
    """An encrypting server's assistant, and a thread that it ran on."""
    with serving(database_uri, WAYS["keys"]) as server:
        async with client_of(server) as sdk:
            assistant_id = await an_assistant(sdk)
            thread_id = (await sdk.threads.create())["thread_id"]
            await sdk.runs.wait(thread_id, assistant_id, input={"text": MARK})
    return assistant_id, thread_id


async def is_read(database_uri: str, assistant_id: str) -> None:
    with serving(database_uri, WAYS["keys"]) as server:
        async with client_of(server) as sdk:
            await assistant_is_read(sdk, assistant_id)
            await assistant_runs(sdk, assistant_id)


async def test_what_is_sealed_is_restored_sealed_where_every_process_can_read_it(
    database_uri: str, empty_database_uri: str, tmp_path: Path
) -> None:
    assistant_id, thread_id = await made_of(database_uri)
    place, file = str(tmp_path / "backup"), str(tmp_path / "thread.jsonl")
    await command("backup", place, database_uri=database_uri)
    await command("threads", "export", thread_id, file, database_uri=database_uri)
    assert MARK not in await asyncio.to_thread(Path(file).read_text)

    await migrate.migrate(empty_database_uri, phase="pre")
    for asked in (("restore", place), ("threads", "import", file)):
        code, said = await tried(*asked, database_uri=empty_database_uri)
        assert (code, f"from after {SWITCH}, which this database awaits: run `waystation migrate`" in said) == (1, True)
    assert count(empty_database_uri, "thread") == count(empty_database_uri, "assistant") == 0

    await migrate.migrate(empty_database_uri)
    await command("threads", "import", file, database_uri=empty_database_uri)
    await command("restore", place, "--existing", "keep", database_uri=empty_database_uri)
    left = places_of(MARK, await raw_tables(empty_database_uri))
    assert [name for name in left if name != "event_chunk"] == []
    await is_read(empty_database_uri, assistant_id)


async def test_a_backup_from_between_the_phases_is_taken_after_them(
    make_database: Callable[[], str], empty_database_uri: str, tmp_path: Path
) -> None:
    await migrate.migrate(empty_database_uri, phase="pre")
    assistant_id, _ = await made_of(empty_database_uri)
    assert "assistant" in places_of(MARK, await raw_tables(empty_database_uri))
    place, database_uri = str(tmp_path / "backup"), make_database()
    await command("backup", place, database_uri=empty_database_uri)
    await command("restore", place, database_uri=database_uri)
    await is_read(database_uri, assistant_id)


def test_a_backup_from_before_a_post_file_that_changes_tables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = migrate.migrations()
    schema = Schema({one.name: one.checksum for one in known}, 0, 0)
    assert complaint_about(schema) is None
    dropped = migrate.Migration("9999_dropped.post", "post", "alter table run drop column resumable;")
    monkeypatch.setattr(migrate, "migrations", lambda: [*known, dropped])
    assert "is from before 9999_dropped.post: restore it with the version" in str(complaint_about(schema))
