"""The audit log of a live server: who did what to threads, runs and keys, what guards refused and people decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from e2e.authorized import new_key
from eventually import eventually
from live_server import LiveServer, live_server_on
from waystation.cli.commands import app
from waystation.config import Settings
from waystation.guarding.audit import PostgresAuditLog
from waystation.guarding.audit_pruning import find_prefix, remove
from waystation_db.pool import Database
from waystation_guards.audit.audit import AuditEntry

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).parent.parent / "fixtures" / "projects" / "audited"


@pytest.fixture(scope="module")
def database(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture(scope="module")
def server(database: str) -> Generator[LiveServer]:
    with live_server_on(database, project=PROJECT, settings=Settings(n_jobs_per_worker=3)) as server:
        yield server


class Caller:
    """Somebody with a key, and what the log says of their tenant since they came."""

    def __init__(self, server: LiveServer, key: str) -> None:
        self.key_id = key.split("_")[1]
        self.http = httpx.AsyncClient(base_url=server.url, timeout=30, headers={"x-api-key": key})

    async def run(self, thread_id: str, **body: Any) -> httpx.Response:
        return await self.http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "teller", **body})

    async def refund(self, thread_id: str, amount: int) -> Any:
        return (await self.run(thread_id, input={"messages": [("user", str(amount))]})).json()

    async def thread(self) -> str:
        return (await self.http.post("/threads", json={})).json()["thread_id"]


Come = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def come(server: LiveServer, database: str) -> AsyncGenerator[Come]:
    """Makes callers with a key of these roles."""
    async with AsyncExitStack() as stack:

        async def come(*roles: Any, tenant: str, name: str = "ada") -> Caller:
            made = Caller(server, await new_key(database, name, *roles, tenant=tenant))
            await stack.enter_async_context(made.http)
            return made

        yield come


async def entries(admin: Caller, action: str | None = None) -> list[dict[str, Any]]:
    params = {"limit": 1000, **({"action": action} if action else {})}
    answer = await admin.http.get("/audit", params=params)
    assert answer.status_code == 200, answer.text
    return [one["entry"] for one in answer.json()]


async def test_what_a_caller_changes_is_written_with_who_and_where(come: Come) -> None:
    admin = await come("admin", tenant="changes")
    thread = await admin.thread()
    await admin.http.get(f"/threads/{thread}")
    await admin.http.post("/threads/search", json={})
    later: dict[str, Any] = {"assistant_id": "teller", "input": {}, "after_seconds": 60}
    made = (await admin.http.post(f"/threads/{thread}/runs", json=later)).json()
    await admin.http.post(f"/threads/{thread}/runs/{made['run_id']}/cancel", params={"wait": True})
    await admin.http.delete(f"/threads/{thread}")
    found = await entries(admin)
    assert [one["action"] for one in found] == [
        "api.create_thread",
        "run.created",
        "api.cancel_run",
        "api.delete_thread",
    ]
    assert {(one["user"], one["key"]) for one in found} == {("ada", admin.key_id)}
    assert (found[1]["thread"], found[1]["run"]) == (thread, made["run_id"])
    assert found[2]["run"] == made["run_id"]
    assert found[3]["thread"] == thread


async def test_refused_tools_and_decisions_of_people_are_written(come: Come) -> None:
    admin = await come("admin", tenant="tools", name="grace")
    service = await come("service", tenant="tools", name="bot")
    refused = await admin.refund(await admin.thread(), 5)
    assert refused["__error__"]["error"] == "NotPermitted"
    thread = await service.thread()
    asked = await service.refund(thread, 500)
    assert asked["__interrupt__"][0]["value"]["action_requests"][0]["args"] == {"amount": 500}
    answer = {"decisions": [{"type": "approve"}]}
    assert (await service.run(thread, command={"resume": answer})).json()["messages"][-1]["content"] == "refunded 500"
    refusal, approval = await entries(admin, "tool.*")
    assert (refusal["action"], refusal["outcome"], refusal["tool"]) == ("tool.refused", "refused", "refund")
    assert (refusal["user"], refusal["node"]) == ("grace", "tools")
    assert refusal["arguments"] == {"amount": 5}
    assert refusal["detail"]["code"] == "not_permitted"
    assert (approval["action"], approval["user"], approval["thread"]) == ("tool.approved", "bot", thread)
    (resumed,) = await entries(admin, "run.resumed")
    assert resumed["detail"] == {"decisions": ["approve"]}
    assert resumed["run"] == approval["run"]


async def test_refused_credentials_are_written_but_not_every_one_of_a_flood(come: Come, server: LiveServer) -> None:
    admin = await come("admin", tenant="default", name="root")
    async with httpx.AsyncClient(base_url=server.url, headers={"x-api-key": "wsk_guessed"}) as stranger:
        for _ in range(60):
            assert (await stranger.get("/threads/x")).status_code == 401
    found = await entries(admin, "auth.refused")
    assert 0 < len(found) < 60
    assert found[0]["outcome"] == "refused"
    assert found[0]["detail"]["client"] == "127.0.0.1"
    reader = await come("reader", tenant="default", name="eve")

    async def is_told() -> bool:  # a place in the sample comes back after a while
        assert (await reader.http.post("/threads", json={})).status_code == 403
        return bool(await entries(admin, "auth.forbidden"))

    await eventually(is_told)
    forbidden = (await entries(admin, "auth.forbidden"))[0]
    assert forbidden["user"] == "eve"
    assert forbidden["detail"]["left_out"] > 0


async def test_the_policy_of_a_process_is_written_when_it_starts(come: Come) -> None:
    admin = await come("admin", tenant="default", name="root")
    (started,) = await entries(admin, "guards.configured")
    assert started["detail"]["policy"]["permissions"][0]["default"] == "deny"
    assert len(started["detail"]["policy_sha256"]) == 64


async def test_only_admins_read_and_only_their_own_tenants_log(come: Come) -> None:
    admin = await come("admin", tenant="mine")
    other = await come("admin", tenant="other")
    for role in ("service", "user", "reader"):
        one = await come(role, tenant="mine")
        for path in ("/audit", "/audit/verify"):
            assert (await one.http.get(path)).status_code == 403
    await admin.thread()
    assert [one["action"] for one in await entries(admin, "api.*")] == ["api.create_thread"]
    assert await entries(other) == []


async def test_a_log_is_read_in_pages_and_verified(come: Come, database: str) -> None:
    admin = await come("admin", tenant="pages")
    for _ in range(5):
        await admin.thread()
    first = await admin.http.get("/audit", params={"limit": 3})
    rest = await admin.http.get("/audit", params={"limit": 3, "after": first.headers["X-Pagination-Next"]})
    assert [one["seq"] for one in first.json() + rest.json()] == [1, 2, 3, 4, 5]
    assert "X-Pagination-Next" not in rest.headers
    verdict = (await admin.http.get("/audit/verify")).json()
    assert verdict == {
        "status": "whole",
        "records": 5,
        "seq": 5,
        "hash": rest.json()[-1]["hash"],
        "fault": None,
        "anchor": None,
    }
    async with Database(database, max_size=1, name="intruder") as db, db.connection() as conn:
        await conn.execute("set session_replication_role = replica")
        await conn.execute("update audit_record set entry = '{\"action\":\"x\"}' where tenant_id = 'pages' and seq = 2")
    verdict = (await admin.http.get("/audit/verify")).json()
    assert (verdict["status"], verdict["fault"]) == ("broken", {"seq": 2, "problem": "was changed"})


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"limit": 0}, "query.limit"),
        ({"limit": 1001}, "query.limit"),
        ({"after": -1}, "query.after"),
        ({"after": 2**63}, "query.after"),
        ({"action": "a\x00"}, "query.action"),
    ],
)
async def test_bad_parameters_name_themselves(come: Come, params: Any, says: str) -> None:
    admin = await come("admin", tenant="mine")
    answer = await admin.http.get("/audit", params=params)
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert says in answer.json()["detail"]
    else:
        assert params == {"action": "a\x00"}  # the frame takes NUL out of queries


@pytest.fixture
def waystation(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Any]]:
    """The command line on this test's database."""
    monkeypatch.setenv("DATABASE_URI", database_uri)

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))  # each makes a loop of its own

    return run


async def test_the_command_line_writes_keys_exports_and_verifies(
    waystation: Callable[..., Awaitable[Any]], database_uri: str, tmp_path: Path
) -> None:
    made = await waystation("keys", "create", "ci", "--role", "service", "--tenant", "acme")
    key = made.stdout.strip()
    await waystation("keys", "revoke", key)
    async with Database(database_uri, max_size=1, name="log") as db:
        await PostgresAuditLog(db).append([AuditEntry("other", "x")])
    whole = await waystation("audit", "verify")
    assert whole.exit_code == 0, whole.output
    assert "whole   acme  2 records  2:" in whole.stdout
    export = tmp_path / "audit.jsonl"
    text = (await waystation("audit", "export", "--tenant", "acme")).stdout
    export.write_text(text)
    assert '"action":"key.created"' in text
    assert '"action":"key.revoked"' in text
    assert key not in text
    head = next(line.split()[-1] for line in whole.stdout.splitlines() if "acme" in line)
    again = await waystation("audit", "verify", "--file", str(export), "--expect", head)
    assert again.exit_code == 0, again.output
    export.write_text(text.replace("service", "admin"))
    broken = await waystation("audit", "verify", "--file", str(export))
    assert (broken.exit_code, "BROKEN" in broken.stdout) == (1, True)
    for wrong in (["--expect", "1:x", "--tenant", "acme"], ["--expect", head], ["--file", str(tmp_path / "none")]):
        assert (await waystation("audit", "verify", *wrong)).exit_code == 2


def moment() -> str:
    """Now, as `--before` takes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def modes_in(folder: Path) -> dict[str, int]:
    """The files of a folder, and who may read them."""
    return {one.name: one.stat().st_mode & 0o777 for one in folder.iterdir()}


async def head_of(run: Callable[..., Awaitable[Any]]) -> str:
    """SEQ:HASH, as an auditor notes it."""
    return (await run("audit", "verify", "--tenant", "acme")).stdout.splitlines()[0].split()[-1]


async def test_the_command_line_prunes_into_an_archive_and_verifies_both_as_one_chain(
    waystation: Callable[..., Awaitable[Any]], database_uri: str, tmp_path: Path
) -> None:
    async with Database(database_uri, max_size=1, name="log") as db:
        log = PostgresAuditLog(db)
        await log.append([AuditEntry("acme", f"old.{number}") for number in range(5)])
        await log.append([AuditEntry("other", "old")])
        noted = await head_of(waystation)
        first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
        pruning = ("audit", "prune", "--tenant", "acme", "--before", moment(), "--archive", str(first))
        shown = await waystation(*pruning)
        assert (shown.exit_code, first.exists()) == (0, False), shown.output
        assert "would prune  acme  5 records  up to 5:" in shown.stdout
        assert (await log.head("acme")).seq == 5
        done = await waystation(*pruning, "--apply")
        assert done.exit_code == 0, done.output
        assert f"up to {noted}" in done.stdout
        assert modes_in(tmp_path) == {"1.jsonl": 0o600}
        assert (await waystation(*pruning, "--apply")).exit_code == 2  # an archive is never written over
        await log.append([AuditEntry("acme", "new")])
        again = await waystation(
            *("audit", "prune", "--tenant", "acme", "--archive", str(second), "--apply"),
            *("--before", moment()),
        )
        assert again.exit_code == 0, again.output
        assert [one.seq async for one in log.read("acme")] == [8]
        assert [one.seq async for one in log.read("other")] == [1]
    alone = await waystation("audit", "verify", "--tenant", "acme")
    assert (alone.exit_code, "7 before them were removed, the last 2 on" in alone.stdout) == (0, True)
    both = ("--archive", str(first), "--archive", str(second))
    whole = await waystation("audit", "verify", "--tenant", "acme", *both, "--expect", noted)
    assert "whole   acme  8 records  8:" in whole.stdout
    assert (await waystation("audit", "verify", "--tenant", "acme", "--expect", noted)).exit_code == 1
    assert (await waystation("audit", "verify", "--tenant", "acme", *both[2:])).exit_code == 1
    assert (await waystation("audit", "verify", "--tenant", "acme", *both[2:], "--after", noted)).exit_code == 0
    assert (await waystation("audit", "verify", "--file", str(second), "--after", noted)).exit_code == 0
    assert (await waystation("audit", "verify", "--file", str(first), "--file", str(second))).exit_code == 0
    first.write_text(first.read_text().replace("old.3", "old.4"))
    forged = await waystation("audit", "verify", "--tenant", "acme", *both)
    assert (forged.exit_code, "record 4 was changed" in forged.stdout) == (1, True)


async def test_the_command_line_removes_nothing_of_a_broken_chain_nor_where_it_cannot_archive(
    waystation: Callable[..., Awaitable[Any]], database_uri: str, tmp_path: Path
) -> None:
    async with Database(database_uri, max_size=1, name="log") as db:
        log = PostgresAuditLog(db)
        await log.append([AuditEntry("acme", f"old.{number}") for number in range(3)])
        before = ("--before", moment(), "--apply")
        nowhere = await waystation(
            "audit", "prune", "--tenant", "acme", *before, "--archive", str(tmp_path / "no" / "x.jsonl")
        )
        assert (nowhere.exit_code, "cannot be written" in nowhere.output) == (2, True)
        async with db.connection() as conn:
            await conn.execute("set session_replication_role = replica")
            await conn.execute('update audit_record set entry = \'{"action":"x"}\' where seq = 2')
            await conn.execute("reset session_replication_role")
        for archive in ((), ("--archive", str(tmp_path / "x.jsonl"))):
            broken = await waystation("audit", "prune", "--tenant", "acme", *before, *archive)
            assert (broken.exit_code, "BROKEN  acme  record 2 was changed" in broken.stdout) == (1, True)
        assert [one.seq async for one in log.read("acme")] == [1, 2, 3]
        assert modes_in(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prune"], "--before"),
        (["prune", "--before", "2026-01-01", "--older-than", "3"], "--before"),
        (["prune", "--older-than", "0"], "--older-than"),
        (["prune", "--before", "2999-01-01"], "still to come"),
        (["prune", "--older-than", "3", "--archive", "x"], "--tenant"),
        (["verify", "--archive", "x"], "--tenant"),
        (["verify", "--after", "1:00"], "--after"),
        (["verify", "--file", "x", "--after", "1:00"], "--after"),
    ],
)
async def test_what_cannot_be_pruned_or_verified_is_said(
    waystation: Callable[..., Awaitable[Any]], arguments: list[str], says: str
) -> None:
    answer = await waystation("audit", *arguments)
    assert (answer.exit_code, says in answer.output) == (2, True), answer.output


async def test_a_pruned_log_is_whole_over_http_and_says_where_it_begins(come: Come, database: str) -> None:
    admin = await come("admin", tenant="pruned")
    for _ in range(4):
        await admin.thread()
    assert len(await entries(admin)) == 4
    async with Database(database, max_size=1, name="log") as db:
        prefix = await find_prefix(db, "pruned", before=datetime.now(UTC) + timedelta(days=1), most=3)
        assert prefix is not None
        assert await remove(db, prefix, by="operator:ada")
    verdict = (await admin.http.get("/audit/verify")).json()
    assert (verdict["status"], verdict["records"], verdict["seq"]) == ("whole", 2, 5)
    anchor = verdict["anchor"]
    assert (anchor["seq"], anchor["hash"], anchor["removed"]) == (3, prefix.upto.hash.hex(), 3)
    assert anchor["by"] == "operator:ada"
    assert datetime.fromisoformat(anchor["at"]).tzinfo is not None
    assert [one["action"] for one in await entries(admin)] == ["api.create_thread", "audit.pruned"]
