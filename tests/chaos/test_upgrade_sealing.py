"""Two neighbouring versions on one encrypted database, of which only the newer one can read sealed assistants."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import BadRequestError, UnprocessableEntityError

from chaos.fleet import PATIENT, Fleet, fleet_of
from chaos.previous_version import Elder, package_before
from encryption_world import KEYS, MARK, PROJECT, assistant_is_read, assistant_runs, places_of, use_an_assistant
from raw_storage import raw_tables
from waystation_db.assistant_sealing import SWITCH
from waystation_db.migrate import migrate

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(240)]

ENCRYPTED = {"LANGGRAPH_AES_KEY": KEYS["langgraph_aes_key"], "LANGGRAPH_AES_JSON_KEYS": "secret"}
_SEALED = """
select count(*) from (
    select a::text as row from assistant a
    union all select v::text from assistant_version v
    union all select concat(r.assistant_config, r.assistant_context) from run r
) as found where row like '%__encryption__%'
"""


async def sealed_rows(database_uri: str) -> int:
    """How many rows have something sealed that an assistant is configured with."""
    async with await psycopg.AsyncConnection.connect(database_uri) as conn:
        [found] = await (await conn.execute(_SEALED)).fetchone() or (0,)
    return int(found)


async def change_and_go_back(sdk: Any, assistant_id: str) -> None:
    """Some more versions, of which the last one shows the second again."""
    await sdk.assistants.update(assistant_id, metadata={"more": "of it"}, context={})
    await sdk.assistants.update(assistant_id, config={"tags": ["other"]})
    await sdk.assistants.set_latest(assistant_id, 2)


async def is_read_and_runs(sdk: Any, assistant_id: str) -> None:
    """As after `change_and_go_back`."""
    shown = await sdk.assistants.get(assistant_id)
    assert (shown["context"], shown["config"]["tags"]) == ({"whisper": MARK}, [MARK])
    assert MARK in json.dumps(await sdk.assistants.get_versions(assistant_id, limit=100))
    await assistant_runs(sdk, assistant_id)


async def encrypted(fleet: Fleet) -> str:
    """What `waystation encrypt --apply` says."""
    return await fleet.command("encrypt --apply")


async def test_assistants_stay_plain_until_no_process_is_left_that_cannot_read_them_sealed(
    tmp_path: Path, empty_database_uri: str
) -> None:
    uri = empty_database_uri
    await migrate(uri, phase="pre")
    root = package_before(tmp_path / "before")
    with fleet_of(tmp_path / "fleet", uri, project=PROJECT, **PATIENT, **ENCRYPTED) as fleet:
        async with AsyncExitStack() as stack:
            elder = Elder(fleet, root, "serve", "--with-worker", project=PROJECT)
            stack.callback(elder.end)
            young = await fleet.alone().ready()
            old: Any = await stack.enter_async_context(get_client(url=(await elder.ready()).url))
            new: Any = await stack.enter_async_context(get_client(url=young.url))
            made = await beside_each_other(fleet, uri, old=old, new=new)
            assert await elder.stop() == 0, elder.log()
            assert await migrate(uri, phase="post") == [SWITCH]
            await alone_at_last(fleet, uri, new, made)
            assert young.is_alive, young.log()


async def beside_each_other(fleet: Fleet, uri: str, *, old: Any, new: Any) -> list[str]:
    """Each version makes an assistant, reads, runs and changes that of the other; nothing of it is sealed."""
    by_old, by_new = await use_an_assistant(old), await use_an_assistant(new)
    assert "Assistants stay plain for now" in await encrypted(fleet)
    for sdk, theirs in ((old, by_new), (new, by_old)):
        await assistant_is_read(sdk, theirs)
        await assistant_runs(sdk, theirs)
        assert await sdk.assistants.count(metadata={"secret": MARK}) == 2
        await change_and_go_back(sdk, theirs)
    for sdk in (old, new):
        await is_read_and_runs(sdk, by_old)
        await is_read_and_runs(sdk, by_new)
    forged = {"__encryption__": {"key": "aes-gcm:default", "data": ""}}
    for given in ({"config": {"configurable": forged}}, {"context": forged}, {"metadata": {"secret": forged}}):
        with pytest.raises(BadRequestError, match="the member __encryption__ is reserved"):
            await new.assistants.create("everywhere", **given)
        with pytest.raises(BadRequestError, match="the member __encryption__ is reserved"):
            await new.assistants.update(by_new, **given)
    assert await sealed_rows(uri) == 0
    return [by_old, by_new]


async def alone_at_last(fleet: Fleet, uri: str, sdk: Any, made: list[str]) -> None:
    """The process that was there all the time reads what is plain, writes sealed, reads what is sealed on demand."""
    for each in made:
        await is_read_and_runs(sdk, each)
    before = await raw_tables(uri)
    late = await use_an_assistant(sdk)
    after = await raw_tables(uri)
    for table in ("assistant", "assistant_version", "run"):
        assert after[table].count(MARK.encode()) == before[table].count(MARK.encode()) > 0
    assert await sealed_rows(uri) > 0
    with pytest.raises(UnprocessableEntityError, match=r"metadata\.secret"):
        await sdk.assistants.count(metadata={"secret": MARK})

    assert "stay plain" not in await encrypted(fleet)
    left = places_of(MARK, await raw_tables(uri))
    assert [name for name in left if name != "event_chunk"] == []
    for each in made:
        await is_read_and_runs(sdk, each)
    await assistant_is_read(sdk, late)
