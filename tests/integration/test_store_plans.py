"""How Postgres finds store items in a table large enough to matter."""

from __future__ import annotations

from typing import Any, LiteralString

import pytest
from psycopg import AsyncConnection

from eventually import eventually
from integration.store_world import index, store_in
from waystation_db.pool import Database
from waystation_db.sql import load
from waystation_db.store_names import Scope
from waystation_db.store_vectors import VectorSpace, search_statement

pytestmark = pytest.mark.anyio

_NAMESPACES = load("store")["list_namespaces"]

FILL = """
insert into store (prefix, key, value)
select tenant || 'users.u' || n / 10, 'k' || n, jsonb_build_object('n', n)
from generate_series(1, %s) as n, unnest(array['', '.acme.']) as tenant
"""


async def plan_of(conn: AsyncConnection[Any], statement: LiteralString, params: dict[str, Any]) -> str:
    """What `explain` says of the whole statement, with the very parameters that it is sent with."""
    lines = await (await conn.execute("explain " + statement, params, binary=False)).fetchall()
    return "\n".join(line for (line,) in lines)


@pytest.mark.parametrize("tenant", ["default", "acme"])
async def test_a_namespace_is_found_by_the_index_on_prefixes(db: Database, tenant: str) -> None:
    search = search_statement("search_items")
    below = Scope.of(tenant).below(("users", "u17")).params()
    params = {**below, "conditions": "[]", "limit": 10, "offset": 0, "refresh": False}
    listing = {**below, "depth": 0, "max_depth": None, "first": ["users"], "last": [], "limit": 10, "offset": 0}
    async with db.connection() as conn:
        await conn.execute(FILL, [20_000])
        await conn.execute("analyze store")
        for plan in (await plan_of(conn, search, params), await plan_of(conn, _NAMESPACES, listing)):
            assert "Seq Scan on store" not in plan, plan
            assert "store_prefix_idx" in plan, plan


async def test_the_nearest_are_found_by_the_index_of_pgvector(db: Database) -> None:
    async with store_in("pgvector", db, kind="hnsw") as store:
        await store.aput(("v",), "k", {"text": "a"})

        async def is_built() -> bool:
            async with db.connection() as conn:
                # Built concurrently, it is there before it can be used.
                statement = "select indisvalid from pg_index where indexrelid = to_regclass(%s)"
                row = await (await conn.execute(statement, ["store_vectors_hnsw_cosine_vector_idx"])).fetchone()
            return row == (True,)

        await eventually(is_built)
    space = VectorSpace.in_pgvector(index(kind="hnsw"), scans_on=True)
    assert space.nearest is not None
    params = {
        **Scope.of("default").below(()).params(),
        **space.query_params([1.0, 0.0, 0.0, 0.0]),
        "conditions": "[]",
        "limit": 10,
        "offset": 0,
        "candidates": 30,
        "refresh": False,
    }
    async with db.connection() as conn:
        await conn.execute(FILL, [2000])
        await conn.execute(
            "insert into store_vectors (prefix, key, field_name, embedding) "
            "select prefix, key, 'text', array[random(), random(), random(), 1]::vector from store where key <> 'k' "
        )
        await conn.execute("analyze store")
        await conn.execute("analyze store_vectors")
        plan = await plan_of(conn, space.nearest, params)
    assert "store_vectors_hnsw_cosine_vector_idx" in plan, plan
