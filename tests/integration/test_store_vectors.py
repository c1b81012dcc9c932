"""Search by meaning: with pgvector and without, the same results as comparing everything by hand."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from langgraph.store.postgres.aio import AsyncPostgresStore

from eventually import eventually
from integration.store_world import DIMS, Where, index, letters, need_pgvector, plain_database, store_in
from waystation_db import store_reindex
from waystation_db.errors import StoreIndexChanged
from waystation_db.pool import Database
from waystation_db.store import open_store
from waystation_db.store_vectors import BadEmbedding, Distance

pytestmark = pytest.mark.anyio

WHERE: tuple[Where, ...] = get_args(Where)


def nearness(a: Sequence[float], b: Sequence[float], distance: Distance) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    match distance:
        case "cosine":
            norms = math.hypot(*a) * math.hypot(*b)
            return dot / norms if norms else 0.0
        case "inner_product":
            return dot
        case "l2":
            return -math.dist(a, b)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("distance", get_args(Distance))
async def test_results_are_those_of_comparing_everything(where: Where, distance: Distance, db: Database) -> None:
    dice = random.Random(7)
    values: dict[str, dict[str, Any]] = {}
    for n in range(60):
        texts = ["".join(dice.choices("abcde", k=dice.randint(1, 6))) for _ in range(dice.randint(1, 3))]
        values[f"k{n:02}"] = {"texts": texts, "even": n % 2 == 0}
    query = "aabd"

    def best(key: str) -> float:
        return max(nearness(vector, letters([query])[0], distance) for vector in letters(values[key]["texts"]))

    async with store_in(where, db, fields=("texts[*]",), distance=distance) as store:
        await asyncio.gather(*(store.aput(("n", key[1]), key, value) for key, value in values.items()))
        found = await store.asearch(("n",), query=query, limit=100)
        assert [item.score for item in found] == pytest.approx(sorted(map(best, values), reverse=True), abs=1e-5)
        assert {item.key: item.score for item in found} == pytest.approx({k: best(k) for k in values}, abs=1e-5)

        few = [k for k in values if k[1] == "3" and values[k]["even"]]
        some = await store.asearch(("n", "3"), query=query, filter={"even": True}, limit=100)
        assert {item.key: item.score for item in some} == pytest.approx({k: best(k) for k in few}, abs=1e-5)

        pages = [await store.asearch(("n",), query=query, limit=7, offset=offset) for offset in range(0, 63, 7)]
        assert [item.key for page in pages for item in page] == [item.key for item in found]


@pytest.mark.parametrize("where", WHERE)
async def test_what_has_no_vector_comes_last_without_a_score(where: Where, db: Database) -> None:
    async with store_in(where, db) as store:
        await store.aput(("n",), "a", {"text": "a"})
        await store.aput(("n",), "off", {"text": "b"}, index=False)
        await store.aput(("n",), "other", {"text": "a", "title": "bbb"}, index=["title"])
        await store.aput(("n",), "none", {"title": "b"})
        await store.aput(("n",), "zero", {"text": "zzz"})
        found = await store.asearch(("n",), query="b")
        assert [(item.key, item.score) for item in found] == [
            ("other", pytest.approx(1)),
            ("zero", pytest.approx(0)),
            ("a", pytest.approx(0)),
            ("none", None),
            ("off", None),
        ]
        assert [item.key for item in await store.asearch(("n",), query="b", limit=2, offset=2)] == ["a", "none"]
        nothing = await store.asearch(("n",), query="zzz", limit=3)
        assert [item.score for item in nothing] == [0, 0, 0]


@pytest.mark.parametrize("where", WHERE)
async def test_a_replaced_item_is_found_by_its_new_text_only(where: Where, db: Database) -> None:
    async with store_in(where, db, fields=("texts[*]",)) as store:
        await store.aput(("n",), "k", {"texts": ["a", "b"]})
        await store.aput(("n",), "k", {"texts": ["c"]})
        [item] = await store.asearch(("n",), query="b")
        assert item.score == pytest.approx(0)
        await store.aput(("n",), "k", {"texts": ["b"]}, index=False)
        [item] = await store.asearch(("n",), query="b")
        assert item.score is None
        await store.aput(("n",), "k", {"texts": ["b"]})
        await store.adelete(("n",), "k")
        assert await store.asearch(("n",), query="b") == []


@pytest.mark.parametrize("where", WHERE)
async def test_tenants_find_only_their_own(where: Where, db: Database) -> None:
    async with store_in(where, db) as store:
        for tenant in ("default", "acme"):
            await store.of(tenant).aput(("n",), tenant, {"text": "a"})
        assert [item.key for item in await store.asearch((), query="a")] == ["default"]
        assert [item.key for item in await store.of("acme").asearch((), query="a")] == ["acme"]
        assert await store.of("nobody").asearch((), query="a") == []


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat"])
async def test_an_index_of_pgvector_is_built_and_leaves_nothing_out(kind: str, db: Database) -> None:
    async with store_in("pgvector", db, kind=kind) as store:

        async def is_built() -> bool:
            async with db.connection() as conn:
                row = await (
                    await conn.execute(
                        "select indisvalid from pg_index where indexrelid = to_regclass(%s)",
                        [f"store_vectors_{kind}_cosine_vector_idx"],
                    )
                ).fetchone()
            return row == (True,)

        await eventually(is_built)
        await asyncio.gather(*(store.aput(("n", str(n % 5)), f"k{n}", {"text": "ab" + "c" * n}) for n in range(50)))
        await store.aput(("n", "1"), "off", {}, index=False)
        found = await store.asearch(("n", "1"), query="c", limit=5)
        assert [item.key for item in found] == ["k46", "k41", "k36", "k31", "k26"]
        assert len(await store.asearch(("n", "1"), query="c", limit=100)) == 11


async def test_half_precision_vectors_are_searched(db: Database) -> None:
    async with store_in("pgvector", db, vector_type="halfvec", kind="hnsw") as store:
        await store.aput(("n",), "k", {"text": "aab"})
        [item] = await store.asearch(("n",), query="aab")
        assert item.score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("where", WHERE)
async def test_no_connection_is_held_while_texts_are_embedded(where: Where, db: Database) -> None:
    pools: list[Database] = []
    held: list[int] = []

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        held.extend(pool.in_use for pool in pools)
        return letters(texts)

    async with store_in(where, db, embed=embed) as store:
        pools.append(store._operations.db)  # pyright: ignore[reportPrivateUsage]  # that pool is the one that matters
        await store.aput(("notes",), "a", {"text": "a"})
        await store.asearch(("notes",), query="a")
    assert held == [0, 0]


async def test_what_waits_together_is_embedded_in_one_call(db: Database) -> None:
    calls: list[int] = []

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        calls.append(len(texts))
        return letters(texts)

    async with store_in("exact", db, embed=embed) as store:
        await asyncio.gather(*(store.aput(("n",), f"k{n}", {"text": f"a{n % 10}"}) for n in range(100)))
    assert calls == [10]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([[1.0] * DIMS] * 2, "2 vectors for 1 texts"),
        ([[1.0]], "a vector of 1 numbers"),
        ([[float("nan")] * DIMS], "infinite or none"),
        ([[1e39] * DIMS], "infinite or none"),
    ],
    ids=str,
)
async def test_wrong_vectors_are_refused(answer: list[list[float]], reason: str, db: Database) -> None:
    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return answer

    async with store_in("exact", db, embed=embed) as store:
        with pytest.raises(BadEmbedding, match=reason):
            await store.aput(("n",), "a", {"text": "a"})
        assert await store.aget(("n",), "a") is None


async def test_a_text_that_cannot_be_embedded_fails_alone(db: Database) -> None:
    async def embed(texts: Sequence[str]) -> list[list[float]]:
        if "bad" in texts:
            raise LookupError("no such word")
        return letters(texts)

    async with store_in("exact", db, embed=embed) as store:
        puts = [store.aput(("n",), text, {"text": text}) for text in ("a", "bad", "b")]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(one) for one in outcomes] == [type(None), LookupError, type(None)]


async def test_vectors_of_another_length_are_refused(db: Database) -> None:
    async with store_in("exact", db) as store:
        await store.aput(("n",), "a", {"text": "a"})
    async with plain_database(db) as plain:
        with pytest.raises(StoreIndexChanged, match=r"store\.index\.dims is 8, but .* have 4"):
            async with open_store(plain, index=index(dims=8)):
                pass


async def test_vectors_of_another_length_are_refused_in_pgvector(db: Database) -> None:
    async with store_in("pgvector", db):
        pass
    async with store_in("pgvector", db, dims=2, embed=_pairs) as store:  # nothing was put: there is nothing to lose
        await store.aput(("n",), "a", {"text": "a"})
        assert len(await store.asearch(("n",), query="a")) == 1
    with pytest.raises(StoreIndexChanged, match=r"store\.index\.dims is 4, but .* have 2"):
        async with store_in("pgvector", db):
            pass


async def _pairs(texts: list[str]) -> list[list[float]]:
    return [[1.0, float(len(text))] for text in texts]


@pytest.mark.parametrize(
    ("changes", "said"), [({"name": "other"}, "embed was changed"), ({"fields": ("t",)}, "fields was changed")]
)
async def test_another_model_or_other_fields_are_said(
    changes: dict[str, Any], said: str, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_in("exact", db) as store:
        await store.aput(("n",), "a", {"text": "a"})
    with caplog.at_level(logging.WARNING):
        async with store_in("exact", db, **changes):
            pass
    assert said in caplog.text


async def test_what_was_made_without_pgvector_is_moved_to_it(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with store_in("exact", db) as store:
            await store.aput(("n",), "a", {"text": "a"})
    assert "pgvector" in caplog.text
    async with store_in("pgvector", db) as store:
        [item] = await store.asearch(("n",), query="a")
        assert item.score == pytest.approx(1)


async def test_the_vectors_of_a_langgraph_database_are_searched(db: Database, database_uri: str) -> None:
    await need_pgvector(db)
    async with AsyncPostgresStore.from_conn_string(
        database_uri, index={"dims": DIMS, "embed": letters, "fields": ["text"]}
    ) as theirs:
        await theirs.setup()
        await theirs.aput(("n",), "a", {"text": "a"})
        await theirs.aput(("n",), "b", {"text": "b"})
        async with store_in("pgvector", db) as ours:
            assert [item.key for item in await ours.asearch(("n",), query="b")] == ["b", "a"]
            await ours.aput(("n",), "c", {"text": "c"})
            [item] = await theirs.asearch(("n",), query="c", limit=1)
            assert item.key == "c"


@pytest.mark.parametrize("where", WHERE)
async def test_all_vectors_are_made_anew_with_other_settings(where: Where, db: Database) -> None:
    async with store_in(where, db) as store:
        puts = [store.of(t).aput(("n",), f"k{n}", {"text": "a" * n}) for t in ("default", "acme") for n in range(1, 8)]
        await asyncio.gather(*puts, store.aput(("n",), "off", {"text": "b"}, index=False))
        pool = store._operations.db  # pyright: ignore[reportPrivateUsage]  # of the role that this store is for
        other, space = await store_reindex.begin(pool, index(dims=2, embed=_pairs, name="pairs"))
        assert await store_reindex.left(pool) == 14
        going = store_reindex.go_on(pool, other, space, batch=5)
        assert await anext(going) == 5
        await going.aclose()
        async with open_store(pool, index=other) as new:  # it may serve already
            await new.aput(("n",), "k7", {"text": "changed"})
            await new.adelete(("n",), "k6")
            assert None in [item.score for item in await new.asearch(("n",), query="aaa")]
            other, space = await store_reindex.prepare(pool, other)
            assert sum([count async for count in store_reindex.go_on(pool, other, space, batch=5)]) in (7, 8)
            assert await store_reindex.left(pool) == 0
            found = await new.asearch(("n",), query="aaa")
            assert found[0].key == "k3"
            assert [item.key for item in found if item.score is None] == ["off"]
            assert (await new.of("acme").asearch(("n",), query="aaaaaa"))[0].key == "k6"
