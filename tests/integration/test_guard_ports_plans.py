"""What guards ask before and after every call finds its rows by index, however long the ledger is."""

from __future__ import annotations

from typing import Any, LiteralString

import pytest

from waystation_db.pool import Database
from waystation_db.sql import load

pytestmark = pytest.mark.anyio

_FILL: list[LiteralString] = [
    """
    insert into guard_account (tenant_id, account_id, scope, owner, unit)
    select 'default', md5('a' || n)::uuid, 'user', 'u' || n, 'usd' from generate_series(1, 20000) n
    """,
    """
    insert into guard_hold (
        tenant_id, call, account_id, amount, worst, thread_id, run_id, attempt, node, of_run, expires_at
    )
    select 'default', 'c' || n, md5('a' || n % 20000)::uuid, 1, 1, gen_random_uuid()::text, gen_random_uuid()::text, 1,
           '', true, now() + interval '1 hour'
    from generate_series(1, 20000) n
    """,
    """
    insert into guard_ledger (
        tenant_id, call, call_id, kind, bills, model, cost_nano_usd, price_version, usage, spent, detail, thread_id,
        run_id, attempt, node, namespace, assistant_id, graph_id, user_id, key_id, claim
    )
    select 'default', n || '/b', n::text, 'model', true, 'm', 1, '', '{}', '[]', '{}', 't', 'r' || n % 100, 1, '',
           '', '', 'g' || n % 50, '', '', ''
    from generate_series(1, 30000) n
    """,
    "insert into thread (thread_id) select gen_random_uuid() from generate_series(1, 5000)",
    """
    insert into run (thread_id, run_id, assistant_id, graph_id, kwargs, status, ended_at)
    select thread_id, gen_random_uuid(), gen_random_uuid(), 'g', '{}', 'success', now()
    from thread, generate_series(1, 4)
    """,
    """
    insert into guard_bucket (tenant_id, name, amount, seconds, level, at)
    select 'default', 'n' || n, 10, 1, 10, now() from generate_series(1, 20000) n
    """,
    """
    insert into guard_cache (tenant_id, key, value, expires_at)
    select 'default', 'k' || n, 'x'::bytea, now() + interval '1 hour' from generate_series(1, 20000) n
    """,
    "analyze",
]

_LEDGER, _STATE, _CACHE = load("guard_ledger"), load("guard_state"), load("guard_cache")
_MARK = {"after_time": "2020-01-01", "after_call": "", "until": None, "limit": 100}
_OF_A_FUNCTION: dict[str, LiteralString] = {
    "over": """
        select h.call
        from guard_hold h
        left join run r
          on r.tenant_id = h.tenant_id and r.thread_id = case when h.of_run then h.thread_id::uuid end
         and r.run_id = case when h.of_run then h.run_id::uuid end and r.status = 'running' and r.attempt = h.attempt
        where h.tenant_id = %(tenant_id)s and h.account_id = md5('a7')::uuid
          and (h.expires_at <= clock_timestamp() or (h.of_run and r.run_id is null))
        """,
    "bill": "select from guard_ledger where tenant_id = %(tenant_id)s and call_id = '7' and bills",
    "lost": "select from guard_ledger where tenant_id = %(tenant_id)s and call_id = '7' and detail ->> 'outcome' = 'x'",
}
HOT: dict[str, tuple[LiteralString, dict[str, Any]]] = {
    "balances": (
        _LEDGER["balances"],
        {"tenant_ids": ["default"], "account_ids": ["0cc175b9-c0f1-b6a8-31c3-99e269772661"]},
    ),
    "ratio": (_LEDGER["ratio"], {"model": "m"}),
    "entries": (_LEDGER["entries"], {**_MARK, "all": False}),
    "model entries": (_LEDGER["model_entries"], _MARK),
    "of a call": (_LEDGER["of_call"], {"call_id": "7"}),
    "cache get": (_CACHE["get"], {"key": "k7"}),
    "cache put": (_CACHE["put"], {"key": "k7", "value": b"x", "ttl_s": 5.0}),
    "give back": (_STATE["give_back"], {"name": "n7", "amount": 10.0, "seconds": 1.0, "cost": 1}),
    "breaker": (_STATE["breaker"], {"target": "n7"}),
    **{name: (statement, {}) for name, statement in _OF_A_FUNCTION.items()},
}
SMALL = ("guard_ratio", "guard_breaker")
"""Tables that are empty here, or hold a row for each model: reading them whole is right."""


async def test_no_statement_of_the_hot_path_reads_a_table_whole(db: Database) -> None:
    async with db.connection() as conn:
        for statement in _FILL:
            await conn.execute(statement)
        for mode in ("force_generic_plan", "force_custom_plan"):
            for name, (statement, params) in HOT.items():
                async with conn.transaction():
                    await conn.execute("select set_config('plan_cache_mode', %s, true)", (mode,))
                    cursor = await conn.execute("explain (costs off) " + statement, {"tenant_id": "default", **params})
                    plan = [row[0] for row in await cursor.fetchall()]
                whole = [line for line in plan if "Seq Scan" in line and not any(table in line for table in SMALL)]
                assert whole == [], (mode, name, "\n".join(plan))
