"""API keys of our own: made on the command line, presented in either header, gone within seconds of being revoked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from langgraph_sdk import get_client
from typer.testing import CliRunner

from e2e.authorized import PROJECT, all_of, http_as, new_key, new_keys
from eventually import eventually
from live_server import live_server_on
from waystation.auth.api_keys import FRESH_S, make_key
from waystation.cli.commands import app
from waystation.config import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]  # processes, each of which imports everything

PEPPER = "a pepper that is long enough"
FORGOTTEN_S = FRESH_S + 20
"""A machine may be slow; a cache that keeps rows for long is seen all the same."""


@pytest.fixture(scope="module")
def keyed_database(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture(scope="module")
def url(keyed_database: str) -> Generator[str]:
    """A server that takes keys, with a pepper."""
    with live_server_on(keyed_database, settings=Settings(auth={"api_keys": True}, key_pepper=PEPPER)) as server:
        yield server.url


def keys(database_uri: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`waystation keys …`."""
    environment = {**os.environ, "DATABASE_URI": database_uri, "WAYSTATION_KEY_PEPPER": PEPPER}
    command = [sys.executable, "-m", "waystation.cli", "keys", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=110, check=False)


async def here(database_uri: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `waystation keys …`, within this process: one that is started imports everything."""
    environ = {"DATABASE_URI": database_uri, "WAYSTATION_KEY_PEPPER": PEPPER}
    done = await asyncio.to_thread(CliRunner().invoke, app, ["keys", *arguments], env=environ)
    return done.exit_code, done.output


async def status(url: str, key: str, *, bearer: bool = False) -> int:
    headers = {"authorization": f"Bearer {key}"} if bearer else {"x-api-key": key}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        return (await http.post("/threads/search", json={})).status_code


async def test_a_key_is_made_shown_once_listed_used_and_revoked(keyed_database: str, url: str) -> None:
    made = keys(keyed_database, "create", "ci", "--role", "service", "--name", "the pipeline", "--expires-in", "90d")
    key = made.stdout.strip()
    assert (made.returncode, made.stderr, key[:4]) == (0, "", "wsk_")
    _, listed = await here(keyed_database, "list")
    key_id, secret = key.removeprefix("wsk_").split("_", 1)
    assert key_id in listed
    assert "the pipeline" in listed
    assert secret not in listed
    async with get_client(url=url, api_key=key) as sdk:  # the official client's own way to send a key
        assert (await sdk.threads.create())["status"] == "idle"
    assert await status(url, key, bearer=True) == 200
    _, listed = await here(keyed_database, "list")
    assert "never" not in next(line for line in listed.splitlines() if key_id in line)
    assert keys(keyed_database, "revoke", key).stdout.split() == ["revoked", key_id]
    await eventually(lambda: refused(url, key), within_s=FORGOTTEN_S)
    assert (await here(keyed_database, "revoke", key_id))[0] == 2
    _, listed = await here(keyed_database, "list")
    assert "revoked" in next(line for line in listed.splitlines() if key_id in line)


async def refused(url: str, key: str) -> bool:
    return await status(url, key) == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--role", "king"), "king"),
        (("create", "x"), "--role"),
        (("create", "x", "--role", "user", "--tenant", "a/b"), "--tenant"),
        (("create", "x", "--role", "user", "--expires-in", "soon"), "--expires-in"),
        (("create", "", "--role", "user"), "identity"),
        (("revoke", "nothing"), "nothing"),
    ],
)
def test_what_cannot_be_is_refused(keyed_database: str, arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["keys", *arguments], env={"DATABASE_URI": keyed_database})
    assert done.exit_code == 2
    assert said in done.stderr


async def test_only_the_whole_key_opens(keyed_database: str, url: str) -> None:
    key = await new_key(keyed_database, "ann", "admin", pepper=PEPPER)
    other = await new_key(keyed_database, "bob", "admin", pepper=PEPPER)
    key_id = key.split("_")[1]
    assert await status(url, key) == 200
    for wrong in (
        key[:-1],
        key + "x",
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        f"wsk_{key_id}_{other.split('_', 2)[2]}",
        f"wsk_{key_id}_",
        f"wsk_{key_id}",
        "wsk_",
        "wsk_" + "f" * 16 + "_x",
        "wsk_" + "x" * 5000,
        key.upper(),
        "nothing of ours",
    ):
        assert await status(url, wrong) == 401, wrong
        assert await status(url, wrong, bearer=True) == 401, wrong
    async with http_as(url, None) as http:
        answer = await http.post("/threads/search", json={})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_key_ends_with_its_time(keyed_database: str, url: str) -> None:
    key = await new_key(keyed_database, "brief", "admin", life=timedelta(seconds=1), pepper=PEPPER)
    await eventually(lambda: refused(url, key), within_s=FORGOTTEN_S)
    assert "expired" in (await here(keyed_database, "list"))[1]


async def test_the_database_alone_does_not_suffice_to_make_or_show_a_key(keyed_database: str, url: str) -> None:
    key = await new_key(keyed_database, "ann", "admin", pepper=PEPPER)
    unpeppered = make_key(tenant_id="default", identity="thief", roles=["admin"], pepper=None)
    peppered = make_key(tenant_id="default", identity="thief", roles=["admin"], pepper="another pepper, just as long")
    with psycopg.connect(keyed_database) as conn:
        stored = str(conn.execute("select * from api_key where identity = 'ann'").fetchall())
        assert key.split("_", 2)[2] not in stored
        for forged in (unpeppered, peppered):
            conn.execute(
                "insert into api_key (key_id, identity, roles, salt, digest, is_peppered) values (%s, 'thief',"
                " array['admin'], %s, %s, true)",
                (forged.row.key_id, forged.row.salt, forged.row.digest),
            )
    assert await status(url, unpeppered.text) == 401
    assert await status(url, peppered.text) == 401


async def test_two_processes_forget_a_revoked_key(keyed_database: str, url: str) -> None:
    key = await new_key(keyed_database, "ann", "admin", pepper=PEPPER)
    settings = Settings(auth={"api_keys": True}, key_pepper=PEPPER, n_jobs_per_worker=0)
    with live_server_on(keyed_database, settings=settings) as second:
        assert [await status(url, key), await status(second.url, key)] == [200, 200]
        assert (await here(keyed_database, "revoke", key))[0] == 0
        for each in (url, second.url):
            await eventually(lambda each=each: refused(each, key), within_s=FORGOTTEN_S)


async def test_roles_allow_what_they_say(keyed_database: str, url: str) -> None:
    made = await new_keys(
        keyed_database,
        [("root", ["admin"]), ("backend", ["service"]), ("ann", ["user"]), ("bob", ["user"]), ("eye", ["reader"])],
        tenant="roles",
        pepper=PEPPER,
    )
    admin, service, ann, bob, reader = (http_as(url, key) for key in made)
    hers = (await ann.post("/threads", json={"metadata": {"waystation_owner": "bob"}})).json()["thread_id"]
    ran = await ann.post(f"/threads/{hers}/runs/wait", json={"assistant_id": "steps", "input": {"n": 0}})
    assert ran.json()["log"] == ["a", "b"]
    made_by_admin = (await admin.post("/assistants", json={"graph_id": "steps"})).json()["assistant_id"]

    async def codes(*asks: tuple[httpx.AsyncClient, str, str, object]) -> list[int]:
        return [a.status_code for a in await all_of(*(c.request(m, p, json=body) for c, m, p, body in asks))]

    thread, runs = f"/threads/{hers}", f"/threads/{hers}/runs"
    everyone = (admin, service, ann, bob, reader)
    reads = [await codes(*((who, "GET", path, None) for who in everyone)) for path in (thread, f"{thread}/state", runs)]
    assert reads == [[200, 200, 200, 404, 200]] * 3
    assert await codes(*((who, "GET", f"/assistants/{made_by_admin}", None) for who in everyone)) == [200] * 5
    renames = await codes(*((who, "PATCH", f"/assistants/{made_by_admin}", {"name": "n"}) for who in everyone))
    assert renames == [200, 403, 403, 403, 403]
    new: dict[str, Any] = {"assistant_id": "steps", "input": {"n": 0}}
    assert await codes(*((who, "POST", f"{runs}/wait", new) for who in everyone)) == [200, 200, 200, 404, 403]
    changes = await codes(*((who, "PATCH", thread, {"metadata": {"a": 1}}) for who in everyone))
    assert changes == [200, 200, 200, 404, 403]
    nothing: dict[str, Any] = {}
    assert await codes(*((who, "POST", "/threads", nothing) for who in everyone)) == [200, 200, 200, 200, 403]
    counted = await all_of(*(who.post("/threads/count", json={}) for who in everyone))
    assert [answer.json() for answer in counted] == [5, 5, 2, 1, 5]
    assert await codes((reader, "DELETE", thread, None), (bob, "DELETE", thread, None)) == [403, 404]
    for client in everyone:
        await client.aclose()


async def test_the_studio_comes_in_with_an_admins_key(database_uri: str) -> None:
    settings = Settings(auth={"api_keys": True})
    admin, user = await new_keys(database_uri, [("root", ["admin"]), ("ann", ["user"])])
    with live_server_on(database_uri, project=PROJECT, settings=settings) as server:
        for key, expected in ((admin, 200), (user, 401)):
            headers = {"x-auth-scheme": "langsmith", "x-api-key": key}
            async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as http:
                assert (await http.post("/threads", json={})).status_code == expected


async def test_keys_stand_beside_the_projects_own_handlers_and_their_rules_hold_for_both(database_uri: str) -> None:
    admin = await new_key(database_uri, "keyed", "admin")
    with live_server_on(database_uri, project=PROJECT, settings=Settings(auth={"api_keys": True})) as server:
        async with http_as(server.url, admin) as by_key, http_as(server.url, "default:ann") as by_handler:
            hers = (await by_handler.post("/threads", json={})).json()
            mine = (await by_key.post("/threads", json={})).json()
            assert (hers["metadata"]["owner"], mine["metadata"]["owner"]) == ("ann", "keyed")
            assert (await by_key.get(f"/threads/{hers['thread_id']}")).status_code == 404
            assert (await by_handler.get(f"/threads/{mine['thread_id']}")).status_code == 404
