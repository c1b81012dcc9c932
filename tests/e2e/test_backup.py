"""The restore drill: load a server, back up while it works, restore elsewhere, compare by table and by API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backup_world import World, as_restored, cli, command, count, dump, fill, new_keys, settings, tried
from eventually import thread_rests
from live_server import Client, live_server_on
from waystation.cli.backing_up_places import Folder
from waystation_db import backup_format, backup_reading
from waystation_db.backup_tables import TABLES

pytestmark = pytest.mark.anyio


async def histories(sdk: Client, world: World) -> dict[str, Any]:
    return {
        thread_id: [await sdk.threads.get(thread_id), await sdk.threads.get_history(thread_id, limit=100)]
        for thread_id in [*world.finished, world.asking]
    }


async def load(sdk: Client, began: asyncio.Event) -> None:
    """New threads and runs, one after the other, for as long as it is let."""
    while True:
        thread_id = (await sdk.threads.create())["thread_id"]
        await sdk.runs.wait(thread_id, "steps", input={"n": 1})
        began.set()


async def test_a_backup_under_load_is_restored_equal_and_goes_on(
    database_uri: str, empty_database_uri: str, tmp_path: Path
) -> None:
    place = Folder(tmp_path / "backup")
    with live_server_on(database_uri, settings=settings()) as server:
        world = await fill(server.url, database_uri)
        async with world.client(server.url) as sdk:
            seen = await histories(sdk, world)
            searched = await sdk.store.search_items(("users",), query="hello 3")
            began = asyncio.Event()
            loads = [asyncio.create_task(load(sdk, began)) for _ in range(3)]
            await began.wait()
            async with backup_reading.open_source(database_uri, tenant=None) as source:
                before = await dump(database_uri, source.snapshot)
                before["run"] = await as_restored(database_uri, source.snapshot)
                began.clear()
                await began.wait()
                place.open_for_writing()
                manifest = await backup_reading.read_all(source, place.aput, version="1", part_bytes=2000)
                place.finish(backup_format.write(manifest))
            for task in loads:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    assert [name for name, rows in before.items() if not rows] == []
    assert "whole" in await command("backup", "verify", place.name, database_uri="")

    said = await command("restore", place.name, "--queued", "pending", database_uri=empty_database_uri)
    assert "Restored" in said

    after = await dump(empty_database_uri)
    for table in TABLES:
        assert after[table.name] == before[table.name], table.name
    assert "BROKEN" not in await command("audit", "verify", database_uri=empty_database_uri)
    with live_server_on(empty_database_uri, settings=settings()) as server:
        async with world.client(server.url) as sdk:
            assert await histories(sdk, world) == seen
            values = await sdk.runs.wait(world.asking, "hitl", command={"resume": "yes"})
            assert values["log"] == ["answer=yes", "b"]
            assert await thread_rests(sdk, world.running) == "idle"
            assert await sdk.store.search_items(("users",), query="hello 3") == searched
        async with world.client(server.url, "acme") as acme:
            assert len(await acme.threads.get_history(world.of_acme)) > 1


@pytest.fixture(scope="module")
def whole(make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, World, Path]:
    """A database, what is in it, and a backup of it."""
    uri = make_database()
    place = tmp_path_factory.mktemp("whole") / "backup"
    # In a thread: this one has the tests' own loop.
    with ThreadPoolExecutor(1) as elsewhere:
        with live_server_on(uri, settings=settings()) as server:
            world = elsewhere.submit(asyncio.run, fill(server.url, uri, running=False)).result()
        done = elsewhere.submit(cli, "backup", str(place), "--part-mb", "0.002", database_uri=uri)
        code, said = done.result()
    assert code == 0, said
    return uri, world, place


async def test_a_tenant_is_backed_up_alone_or_restored_alone(
    whole: tuple[str, World, Path], database_uri: str, empty_database_uri: str, tmp_path: Path
) -> None:
    uri, _, place = whole
    await command("backup", "--tenant", "acme", str(tmp_path / "acme.tar"), database_uri=uri)
    await command("restore", str(tmp_path / "acme.tar"), "--queued", "pending", database_uri=database_uri)
    await command("restore", str(place), "--tenant", "acme", "--queued", "pending", database_uri=empty_database_uri)

    alone, chosen, all_of_it = await dump(database_uri), await dump(empty_database_uri), await dump(uri)
    assert alone == chosen
    for table in TABLES:
        assert set(alone[table.name]) <= set(all_of_it[table.name])
        if table.of != "all" and table.name not in ("guard_ratio", "run_trace", "run_idempotency"):
            assert not any("default" in row.split(",")[0] for row in alone[table.name])
    assert count(database_uri, "thread") == 1
    assert count(database_uri, "store") == 5
    assert count(database_uri, "checkpoints") > 1


async def test_a_tenant_comes_back_beside_others(whole: tuple[str, World, Path], empty_database_uri: str) -> None:
    uri, world, place = whole
    await command("restore", str(place), "--tenant", "default", "--queued", "pending", database_uri=empty_database_uri)
    await command("restore", str(place), "--tenant", "acme", "--queued", "pending", database_uri=empty_database_uri)

    assert {**await dump(empty_database_uri), "guard_value": []} == {**await dump(uri), "guard_value": []}
    assert world.of_acme


async def test_what_is_there_is_refused_kept_or_replaced(
    whole: tuple[str, World, Path], empty_database_uri: str
) -> None:
    uri, world, place = whole
    await command("restore", str(place), "--queued", "pending", database_uri=empty_database_uri)
    code, said = await tried("restore", str(place), database_uri=empty_database_uri)
    assert code == 1
    assert "the database is not empty: it has rows in api_key, assistant" in said

    with live_server_on(empty_database_uri, settings=settings()) as server:
        async with world.client(server.url) as sdk:
            await sdk.threads.delete(world.finished[0])
            await sdk.runs.wait(world.finished[1], "steps", input={"n": 1})
            kept = await sdk.threads.get_history(world.finished[1], limit=100)
            await command("restore", str(place), "--existing", "keep", database_uri=empty_database_uri)
            assert await sdk.threads.get_history(world.finished[1], limit=100) == kept
            assert len(await sdk.threads.get_history(world.finished[0], limit=100)) == len(kept) - 4
            options = ("--existing", "replace", "--queued", "pending")
            await command("restore", str(place), *options, database_uri=empty_database_uri)
            assert len(await sdk.threads.get_history(world.finished[1], limit=100)) == len(kept) - 4
    before, after = await dump(uri), await dump(empty_database_uri)
    for name in (
        "thread",
        "run",
        "checkpoints",
        "checkpoint_blobs",
        "store",
        "guard_ledger",
        "audit_record",
        "guard_hold",
    ):
        assert after[name] == before[name], name
    assert "BROKEN" not in await command("audit", "verify", database_uri=empty_database_uri)


async def test_what_waits_is_held_back_until_it_is_released(
    whole: tuple[str, World, Path], empty_database_uri: str
) -> None:
    uri, _, place = whole
    said = await command("restore", str(place), database_uri=empty_database_uri)
    assert "paused" in said
    held = await dump(empty_database_uri)
    assert held["run"] != (before := await dump(uri))["run"]
    assert held["cron"] != before["cron"]

    said = await command("restore", "--release", database_uri=empty_database_uri)

    assert said == "Go on: 1 runs, 2 crons, 2 webhooks.\n"
    after = await dump(empty_database_uri)
    assert (after["cron"], after["webhook_delivery"]) == (before["cron"], before["webhook_delivery"])


@pytest.mark.parametrize("harm", ["changed", "truncated", "missing", "no manifest", "changed manifest", "wrong digest"])
async def test_a_damaged_backup_is_refused_and_changes_nothing(
    harm: str, whole: tuple[str, World, Path], database_uri: str, tmp_path: Path
) -> None:
    place = _copied(whole[2], tmp_path / "damaged")
    part = sorted((place / "parts").iterdir())[3]
    manifest = place / "manifest.json"
    extra: tuple[str, ...] = ()
    match harm:
        case "changed":
            data = bytearray(part.read_bytes())
            data[len(data) // 2] ^= 1
            part.write_bytes(data)
        case "truncated":
            part.write_bytes(part.read_bytes()[:-9])
        case "missing":
            part.unlink()
        case "no manifest":
            manifest.unlink()
        case "changed manifest":
            manifest.write_text(manifest.read_text().replace('"thread": ', '"thread": 1'))
        case _:
            extra = ("--digest", "0" * 64)
    for arguments in (("backup", "verify", str(place)), ("restore", str(place))):
        code, said = await tried(*arguments, *extra, database_uri=database_uri)
        assert code in (1, 2)
        assert said.splitlines()[-1].startswith("Error: ")
    assert count(database_uri, "thread") == 0


def _copied(source: Path, target: Path) -> Path:
    (target / "parts").mkdir(parents=True)
    for one in (*source.glob("parts/*"), source / "manifest.json"):
        (target / one.relative_to(source)).write_bytes(one.read_bytes())
    return target


async def test_a_schema_that_is_not_known_is_refused(
    whole: tuple[str, World, Path], database_uri: str, tmp_path: Path
) -> None:
    place = _copied(whole[2], tmp_path / "newer")
    manifest = backup_format.read((place / "manifest.json").read_bytes())
    newer = {**manifest.schema.migrations, "9999_tomorrow.pre": "00"}
    for schema, why in (
        (backup_format.Schema(newer, 1, 1), "does not know 9999_tomorrow.pre"),
        (backup_format.Schema({"0001_engine.pre": "00"}, 1, 1), "0001_engine.pre is not the one of this version"),
        (backup_format.Schema({}, 99, 1), "newer langgraph-checkpoint-postgres"),
    ):
        (place / "manifest.json").write_bytes(backup_format.write(replace(manifest, schema=schema)))
        code, said = await tried("restore", str(place), database_uri=database_uri)
        assert code == 1
        assert why in said


async def test_a_thread_goes_from_one_installation_to_another(
    whole: tuple[str, World, Path], database_uri: str, tmp_path: Path
) -> None:
    uri, world, _ = whole
    file = str(tmp_path / "thread.jsonl")
    for thread_id in (world.asking, world.queued):
        await command("threads", "export", thread_id, file, "--store", "users.u1", database_uri=uri)
        await command("threads", "import", file, database_uri=database_uri)
    code, said = await tried("threads", "import", file, database_uri=database_uri)
    assert (code, "is here already" in said) == (1, True)
    assert "1 runs" not in await command("threads", "import", file, "--new-id", database_uri=database_uri)
    await command("threads", "export", world.asking, file, database_uri=uri)
    await command("threads", "import", file, "--new-id", "--tenant", "acme", database_uri=database_uri)

    before, after = await dump(uri), await dump(database_uri)
    for name in ("checkpoints", "thread", "checkpoint_blobs", "store"):
        mine = [row for row in before[name] if world.asking in row]
        assert set(mine) <= set(after[name])
    assert (count(database_uri, "thread"), count(database_uri, "store")) == (4, 1)
    with live_server_on(database_uri, settings=settings()) as server:
        world = replace(world, keys=await new_keys(database_uri))
        async with world.client(server.url) as sdk:
            values = await sdk.runs.wait(world.asking, "hitl", command={"resume": "yes"})
            assert values["log"] == ["answer=yes", "b"]
        async with world.client(server.url, "acme") as acme:
            (thread,) = await acme.threads.search()
            assert thread["status"] == "interrupted"
            values = await acme.runs.wait(thread["thread_id"], "hitl", command={"resume": "no"})
            assert values["log"] == ["answer=no", "b"]


@pytest.mark.parametrize("harm", ["truncated", "changed", "foreign", "binary"])
async def test_a_damaged_thread_is_refused(
    harm: str, whole: tuple[str, World, Path], database_uri: str, tmp_path: Path
) -> None:
    uri, world, _ = whole
    file = tmp_path / "thread.jsonl"
    await command("threads", "export", world.asking, str(file), database_uri=uri)
    text = file.read_text()
    match harm:
        case "truncated":
            file.write_text("".join(text.splitlines(keepends=True)[:-2]))
        case "changed":
            file.write_text(text.replace("go on?", "go off"))
        case "foreign":
            file.write_text('{"a": 1}\n')
        case _:
            file.write_bytes(b"\xff\xfe\x00")
    code, said = await tried("threads", "import", str(file), database_uri=database_uri)
    assert code in (1, 2)
    assert said.startswith("Error: ")
    assert count(database_uri, "thread") == 0
