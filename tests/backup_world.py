"""A database with something in every table that a backup holds, of two tenants, and what it looks like from below."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from langgraph_sdk import get_client
from psycopg import AsyncConnection, sql
from typer.testing import CliRunner

from e2e.authorized import new_key
from eventually import eventually
from live_server import Client
from waystation.cli.commands import app
from waystation.config import Settings
from waystation_db import audit
from waystation_db.backup_tables import TABLES
from waystation_db.pool import Database

SETTINGS: dict[str, Any] = {"n_jobs_per_worker": 6, "auth": {"api_keys": True}}
RARELY = "0 0 1 1 *"
TENANTS = ("default", "acme")

# What no client of the server below brings about: other guards, other keys, other times.
_REST = """
insert into encryption_key (key_id) values ('k1');
insert into run_trace (tenant_id, thread_id, run_id, graph_id, attempt, epoch_ms, resumable, native)
select tenant_id, thread_id, gen_random_uuid(), 'steps', 1, 5, true, false from thread limit 3;
insert into run_idempotency (tenant_id, key, request_hash, thread_id, run_id)
select tenant_id, 'key-' || run_id, '\\x01', thread_id, run_id from run limit 3;
insert into checkpoint_write_before (tenant_id, thread_id, run_id, checkpoint_ns, checkpoint_id, task_id, idx)
select tenant_id, thread_id, run_id, '', 'c', 't', 0 from run limit 3;
insert into webhook_delivery (tenant_id, delivery_id, thread_id, run_id, url, payload, due_at)
select tenant_id, gen_random_uuid(), thread_id, run_id, 'http://127.0.0.1:9/', '{"b": 1, "a": [1.10]}',
       now() + interval '1 day' from run limit 2;
insert into store_reindex (prefix, key) values ('later', 'k'), ('.acme.later', 'k');
insert into guard_account (tenant_id, account_id, scope, owner, unit, spent, held, at_risk)
select t, gen_random_uuid(), 'tenant', t, 'usd', 9007199254740993, 5, 7 from unnest(array['default', 'acme']) t;
insert into guard_hold (tenant_id, call, account_id, amount, worst, thread_id, run_id, attempt, node, of_run,
    expires_at)
select tenant_id, 'call', account_id, 5, 7, 't', 'r', 1, 'n', false, now() + interval '1 day' from guard_account;
insert into guard_ledger (tenant_id, call, call_id, kind, bills, model, cost_nano_usd, price_version, usage, spent,
    detail, thread_id, run_id, attempt, node, namespace, assistant_id, graph_id, user_id, key_id, claim)
select t, 'c-' || n, 'c-' || n, 'model', true, 'm', n, 'v', '{}', '[]', '{}', '', '', 1, '', '', '', '', '', '', ''
from unnest(array['default', 'acme']) t, generate_series(1, 50) n;
insert into guard_ratio (model, ratio) values ('m', 0.1 + 0.2::float8);
insert into guard_value (tenant_id, name, "value", version) values ('', 'level', 'reduced', 3), ('acme', 'x', null, 1);
insert into guard_kill (tenant_id, scope, owner, until) values ('acme', 'user', 'mallory', now() + interval '1 day');
"""

_VECTORS = sql.SQL("select prefix, key, field_name, embedding::real[] from {}")


@dataclass(frozen=True, slots=True)
class World:
    """Keys of both tenants, and threads of the default one: finished, waiting for an answer, running, queued."""

    keys: dict[str, str]
    finished: list[str]
    asking: str
    running: str
    queued: str
    of_acme: str

    def client(self, url: str, tenant: str = "default") -> Client:
        return _client(url, self.keys[tenant])


def settings() -> Settings:
    return Settings(**SETTINGS)


async def new_keys(database_uri: str) -> dict[str, str]:
    """A key of each tenant."""
    return {tenant: await new_key(database_uri, "ann", "admin", tenant=tenant) for tenant in TENANTS}


async def fill(url: str, database_uri: str, *, running: bool = True) -> World:
    """Use a server so that it has something of everything."""
    keys = await new_keys(database_uri)
    async with _client(url, keys["default"]) as sdk:
        finished = [await _finished(sdk) for _ in range(6)]
        asking, slow, queued = [(await sdk.threads.create(metadata={"ü": "☃"}))["thread_id"] for _ in range(3)]
        await sdk.runs.wait(asking, "hitl", input={"n": 1})
        await sdk.runs.create(queued, "steps", input={"n": 1}, after_seconds=3600)
        await _rest_of(sdk)
        async with _client(url, keys["acme"]) as acme:
            of_acme = await _finished(acme)
            await _rest_of(acme)
        await _rest_by_hand(database_uri)
        if running:
            run = await sdk.runs.create(slow, "slow", input={"n": 3, "delay": 1.0})

            async def has_begun() -> bool:
                return (await sdk.runs.get(slow, run["run_id"]))["status"] == "running"

            await eventually(has_begun)
    return World(keys, finished, asking, slow, queued, of_acme)


async def _rest_by_hand(database_uri: str) -> None:
    async with Database(database_uri, max_size=1, name="fill") as db, db.connection() as conn:
        for tenant in TENANTS:
            entries = [json.dumps({"action": "test", "n": n, "text": "ö"}, ensure_ascii=False) for n in range(40)]
            await audit.append(conn, tenant, entries)
            prefix = await audit.find_prefix(conn, tenant, before=datetime(9999, 1, 1, tzinfo=UTC), most=10)
            assert prefix is not None
            note = json.dumps(
                {"action": "audit.pruned", "detail": {"seq": prefix.seq, "hash": prefix.hash.hex()}}, sort_keys=True
            )
            gone = await audit.prune(
                conn, tenant, since=0, upto=prefix.seq, digest=prefix.hash, made_by="fill", note=note
            )
            assert gone == prefix.seq
        for statement in _REST.split(";\n"):
            if statement.strip():
                await conn.execute(sql.SQL(statement))  # type: ignore[arg-type]  # the text above


def _client(url: str, key: str) -> Client:
    return get_client(url=url, api_key=key)


async def _finished(sdk: Client) -> str:
    thread_id = (await sdk.threads.create(metadata={"n": 1.5}))["thread_id"]
    for _ in range(2):
        await sdk.runs.wait(thread_id, "steps", input={"n": 1})
    return thread_id


async def _rest_of(sdk: Client) -> None:
    made = await sdk.assistants.create("steps", name="mine")
    await sdk.assistants.update(made["assistant_id"], metadata={"a": 2})
    await sdk.crons.create("steps", schedule=RARELY, input={"b": 1, "a": 2})
    for n in range(5):
        await sdk.store.put_item(("users", f"u{n}"), key="k", value={"text": f"hello {n}", "x": [1, None, "\u2028"]})


def cli(*arguments: str, database_uri: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"DATABASE_URI": database_uri})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


async def tried(*arguments: str, database_uri: str = "") -> tuple[int, str]:
    """Exit code and output of a command."""
    return await asyncio.to_thread(cli, *arguments, database_uri=database_uri)


async def command(*arguments: str, database_uri: str) -> str:
    """What a command says that succeeds."""
    code, said = await tried(*arguments, database_uri=database_uri)
    assert code == 0, said
    return said


async def dump(database_uri: str, snapshot: str | None = None) -> dict[str, list[str]]:
    """Every row of every table that a backup holds, as text; through a snapshot that somebody has exported."""
    found: dict[str, list[str]] = {}
    async with await AsyncConnection.connect(database_uri, autocommit=True) as conn:
        await conn.execute("begin isolation level repeatable read, read only")
        if snapshot is not None:
            await conn.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
        for table in TABLES:
            # The text of a whole row: no type is left out, and no number rounded.
            query = sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(table.name))
            found[table.name] = [str(row[0]) for row in await (await conn.execute(query)).fetchall()]
        row = await (await conn.execute("select to_regclass('store_vectors') is not null")).fetchone()
        tables = ["store_vectors", "store_embedding"] if row == (True,) else ["store_embedding"]
        vectors = [await (await conn.execute(_VECTORS.format(sql.Identifier(one)))).fetchall() for one in tables]
        found["store_embedding"] = sorted(str(row) for rows in vectors for row in rows)
    return found


async def as_restored(database_uri: str, snapshot: str) -> list[str]:
    """The runs of a snapshot as they are to be after a restore: what ran waits again."""
    async with await AsyncConnection.connect(database_uri, autocommit=True) as conn:
        await conn.execute("begin isolation level repeatable read, read only")
        await conn.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
        rows = await conn.execute(
            "select jsonb_populate_record(t, case when status = 'running' then"
            ' \'{"status": "pending", "lease_expires_at": null, "claimed_by": null}\'::jsonb else \'{}\' end)::text'
            " from run t order by 1"
        )
        return [str(row[0]) for row in await rows.fetchall()]


def count(database_uri: str, table: str) -> int:
    with psycopg.connect(database_uri) as conn:
        row = conn.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
        assert row is not None
        return int(row[0])
