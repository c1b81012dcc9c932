"""The audit log of a live server: who did what to threads, runs and keys, what guards refused and people decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
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
