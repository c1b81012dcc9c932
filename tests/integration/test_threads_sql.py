"""Threads in Postgres: what clients see of them, how they are found and patched."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, cast

import pytest

from waystation_db import threads
from waystation_db.pool import Database
from waystation_db.threads import Conn, ThreadFilter, Ttl

pytestmark = pytest.mark.anyio

T = "default"


def new_id() -> str:
    return str(uuid.uuid4())


async def make(
    conn: Conn, *, metadata: dict[str, Any] | None = None, tenant: str = T, ttl: Ttl | None = None
) -> dict[str, Any]:
    raw = await threads.create(conn, tenant, new_id(), metadata=json.dumps(metadata or {}), ttl=ttl)
    assert raw is not None
    return json.loads(raw)


async def face(conn: Conn, thread_id: str, *, values: Any, status: Any = "idle", interrupts: Any = None) -> None:
    assert await threads.save_face(
        conn,
        T,
        thread_id,
        values=json.dumps(values).encode(),
        interrupts=json.dumps(interrupts or {}).encode(),
        resting_status=status,
    )


async def ids(conn: Conn, where: ThreadFilter | None = None, **more: Any) -> list[str]:
    options: dict[str, Any] = {"limit": 100, "offset": 0, "fields": ["thread_id"]} | more
    rows = await threads.search(conn, T, where=where or ThreadFilter(), **options)
    return [json.loads(row)["thread_id"] for row in rows]


async def test_new_thread_shows_no_error_and_no_interrupts(db: Database) -> None:
    async with db.connection() as conn:
        thread = await make(conn, metadata={"n": 1})
    assert list(thread) == [
        "thread_id",
        "created_at",
        "updated_at",
        "state_updated_at",
        "metadata",
        "status",
        "config",
        "values",
    ]
    assert (thread["metadata"], thread["status"], thread["config"], thread["values"]) == ({"n": 1}, "idle", {}, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", thread["created_at"])
    assert thread["created_at"] == thread["updated_at"] == thread["state_updated_at"]


async def test_times_are_utc_whatever_the_session_says(db: Database) -> None:
    async with db.connection() as conn, conn.transaction():
        await conn.execute("set local timezone to 'Asia/Kolkata'")
        cur = await conn.execute("select waystation_time('2026-01-02 03:04:05+00')")
        assert await cur.fetchone() == ("2026-01-02T03:04:05.000000+00:00",)


async def test_an_id_can_be_taken_once(db: Database) -> None:
    thread_id = new_id()
    async with db.connection() as conn:
        assert await threads.create(conn, T, thread_id, metadata="{}", ttl=None)
        assert await threads.create(conn, T, thread_id, metadata="{}", ttl=None) is None


async def test_saved_face_shows_error_and_interrupts(db: Database) -> None:
    async with db.connection() as conn:
        made = await make(conn)
        await face(conn, made["thread_id"], values={"a": 1}, status="interrupted", interrupts={"t": [{"id": "i"}]})
        thread = json.loads(cast("bytes", await threads.get(conn, T, made["thread_id"])))
    assert thread["status"] == "interrupted"
    assert (thread["values"], thread["error"], thread["interrupts"]) == ({"a": 1}, None, {"t": [{"id": "i"}]})
    assert thread["state_updated_at"] > made["state_updated_at"]


async def test_a_busy_thread_takes_no_face(db: Database) -> None:
    async with db.connection() as conn:
        made = await make(conn)
        await conn.execute("update thread set active_runs = 1, status = 'busy'")
        saved = await threads.save_face(
            conn, T, made["thread_id"], values=b"{}", interrupts=b"{}", resting_status="idle"
        )
    assert saved is None


async def test_patch_merges_metadata_and_leaves_the_state_time(db: Database) -> None:
    async with db.connection() as conn:
        made = await make(conn, metadata={"a": 1, "b": {"c": 1}})
        raw = await threads.patch(conn, T, made["thread_id"], metadata='{"b": {"d": 2}}')
    thread = json.loads(cast("bytes", raw))
    assert thread["metadata"] == {"a": 1, "b": {"d": 2}}
    assert thread["updated_at"] > made["updated_at"]
    assert thread["state_updated_at"] == made["state_updated_at"]


async def test_ttl_is_shown_when_asked_for(db: Database) -> None:
    async with db.connection() as conn:
        made = await make(conn, ttl=Ttl("delete", 5))
        without = json.loads(cast("bytes", await threads.get(conn, T, made["thread_id"])))
        with_ttl = json.loads(cast("bytes", await threads.get(conn, T, made["thread_id"], with_ttl=True)))
        plain = await make(conn)
        plain_with_ttl = json.loads(cast("bytes", await threads.get(conn, T, plain["thread_id"], with_ttl=True)))
    assert "ttl" not in without
    assert "ttl" not in plain_with_ttl
    ttl = with_ttl.pop("ttl")
    assert with_ttl == without
    assert (ttl["strategy"], ttl["ttl_minutes"]) == ("delete", 5)
    assert ttl["expires_at"] > made["created_at"]


async def test_a_new_ttl_counts_from_the_patch_and_a_metadata_patch_leaves_it(db: Database) -> None:
    async with db.connection() as conn:
        made = await make(conn, ttl=Ttl("delete", 5))
        before = json.loads(cast("bytes", await threads.get(conn, T, made["thread_id"], with_ttl=True)))["ttl"]
        await threads.patch(conn, T, made["thread_id"], metadata='{"x": 1}')
        same = json.loads(cast("bytes", await threads.get(conn, T, made["thread_id"], with_ttl=True)))["ttl"]
        await threads.patch(conn, T, made["thread_id"], metadata="{}", ttl=Ttl("keep_latest", 60))
        after = json.loads(cast("bytes", await threads.get(conn, T, made["thread_id"], with_ttl=True)))["ttl"]
    assert same == before
    assert (after["strategy"], after["ttl_minutes"]) == ("keep_latest", 60)
    assert after["expires_at"] > before["expires_at"]


async def test_search_finds_by_metadata_values_status_and_ids(db: Database) -> None:
    async with db.connection() as conn:
        a = (await make(conn, metadata={"tag": "x", "deep": {"k": [1, 2]}}))["thread_id"]
        b = (await make(conn, metadata={"tag": "y"}))["thread_id"]
        await face(conn, a, values={"n": 2, "log": ["a"]}, status="interrupted")
        assert await ids(conn) == [b, a]
        assert await ids(conn, ThreadFilter(metadata='{"deep": {"k": [2]}}')) == [a]
        assert await ids(conn, ThreadFilter(values='{"n": 2}')) == [a]
        assert await ids(conn, ThreadFilter(values='{"n": 3}')) == []
        assert await ids(conn, ThreadFilter(status="interrupted")) == [a]
        assert await ids(conn, ThreadFilter(ids=[b])) == [b]
        assert await ids(conn, ThreadFilter(ids=[])) == []
        assert await threads.count(conn, T, where=ThreadFilter(metadata='{"tag": "y"}', status="idle")) == 1


@pytest.mark.parametrize("sort_by", ["thread_id", "status", "created_at", "updated_at", "state_updated_at"])
async def test_every_sort_is_total_and_reversible(db: Database, sort_by: Any) -> None:
    async with db.connection() as conn:
        made = [await make(conn) for _ in range(5)]
        await face(conn, made[1]["thread_id"], values={}, status="interrupted")
        rows = [json.loads(r) for r in await threads.search(conn, T, where=ThreadFilter(), limit=9, offset=0)]
        expected = sorted(rows, key=lambda row: (row[sort_by], row["thread_id"]))
        ascending = await ids(conn, sort_by=sort_by, sort_order="asc")
        descending = await ids(conn, sort_by=sort_by, sort_order="desc")
        pages = [await ids(conn, sort_by=sort_by, sort_order="asc", limit=2, offset=n) for n in (0, 2, 4, 6)]
    assert ascending == [row["thread_id"] for row in expected]
    assert descending == ascending[::-1]
    assert [i for page in pages for i in page] == ascending


async def test_select_shows_only_what_was_chosen(db: Database) -> None:
    async with db.connection() as conn:
        a = (await make(conn))["thread_id"]
        fields = ["values", "status", "interrupts", "error"]
        fresh = await threads.search(conn, T, where=ThreadFilter(), limit=1, offset=0, fields=fields)
        await face(conn, a, values={"n": 1})
        used = await threads.search(conn, T, where=ThreadFilter(), limit=1, offset=0, fields=fields)
    assert json.loads(fresh[0]) == {"values": None, "status": "idle"}
    assert json.loads(used[0]) == {"values": {"n": 1}, "status": "idle", "interrupts": {}, "error": None}


async def test_extract_takes_members_elements_and_nothing(db: Database) -> None:
    wishes: list[dict[str, Any]] = [
        {"alias": "first", "root": "values", "path": ["log", "0"]},
        {"alias": "last", "root": "values", "path": ["log", "-1"]},
        {"alias": "tag", "root": "metadata", "path": ["tag"]},
        {"alias": "none", "root": "values", "path": ["nope", "3"]},
        {"alias": "whole", "root": "interrupts", "path": []},
    ]
    async with db.connection() as conn:
        a = (await make(conn, metadata={"tag": "t"}))["thread_id"]
        await face(conn, a, values={"log": ["a", {"b": 1}]})
        rows = await threads.search(
            conn, T, where=ThreadFilter(), limit=1, offset=0, fields=["thread_id"], extract=json.dumps(wishes)
        )
    extracted = {"first": "a", "last": {"b": 1}, "tag": "t", "none": None, "whole": {}}
    assert json.loads(rows[0]) == {"thread_id": a, "extracted": extracted}


async def test_another_tenant_and_a_filtered_caller_see_nothing(db: Database) -> None:
    async with db.connection() as conn:
        a = (await make(conn, metadata={"owner": "me"}))["thread_id"]
        other = '{"owner": "you"}'
        assert await threads.get(conn, "other", a) is None
        assert await threads.get(conn, T, a, visible=other) is None
        assert await threads.get(conn, T, a, visible='{"owner": "me"}')
        assert await threads.patch(conn, T, a, metadata="{}", visible=other) is None
        assert await threads.graph_of(conn, T, a, visible=other) is None
        assert await threads.lock_for_state(conn, T, a, visible=other) is None
        assert await threads.copy(conn, T, a, copy_id=new_id(), visible=other) is None
        assert await threads.count(conn, "other", where=ThreadFilter()) == 0
        assert await threads.count(conn, T, where=ThreadFilter(), visible=other) == 0
        assert await threads.search(conn, T, where=ThreadFilter(), limit=9, offset=0, visible=other) == []


async def test_hidden_threads_do_not_exist_for_clients(db: Database) -> None:
    async with db.connection() as conn:
        a = (await make(conn))["thread_id"]
        await conn.execute("update thread set hidden_at = now()")
        assert await threads.get(conn, T, a) is None
        assert await threads.patch(conn, T, a, metadata="{}") is None
        assert await ids(conn) == []
        assert await ids(conn, sort_by="status") == []
        assert await threads.count(conn, T, where=ThreadFilter()) == 0


async def test_copy_has_metadata_and_face_but_shows_the_state_only_later(db: Database) -> None:
    async with db.connection() as conn:
        a = (await make(conn, metadata={"k": 1}))["thread_id"]
        await face(conn, a, values={"n": 1}, status="interrupted", interrupts={"t": []})
        copy_id = new_id()
        answer = json.loads(cast("bytes", await threads.copy(conn, T, a, copy_id=copy_id)))
        copied = json.loads(cast("bytes", await threads.get(conn, T, copy_id)))
    assert "values" not in answer
    assert (answer["thread_id"], answer["metadata"], answer["status"]) == (copy_id, {"k": 1}, "interrupted")
    assert (copied["values"], copied["interrupts"], copied["config"]) == ({"n": 1}, {"t": []}, {})


async def test_copy_of_a_busy_thread_rests(db: Database) -> None:
    async with db.connection() as conn:
        a = (await make(conn))["thread_id"]
        await conn.execute("update thread set status = 'busy', active_runs = 2, resting_status = 'interrupted'")
        answer = json.loads(cast("bytes", await threads.copy(conn, T, a, copy_id=new_id())))
    assert answer["status"] == "interrupted"


async def test_newest_first_is_read_from_the_index(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute(
            "insert into thread (thread_id, created_at, metadata) "
            "select gen_random_uuid(), now() - make_interval(secs => n), jsonb_build_object('n', n) "
            "from generate_series(1, 20000) n"
        )
        await conn.execute("analyze thread")
        params = {
            "tenant_id": T, "visible": None, "ids": None, "metadata": None, "values": None, "status": None,
            "fields": ["thread_id"], "extract": None, "limit": 10, "offset": 0,
        }  # fmt: skip
        newest = threads.load("threads")["search_newest"]
        plan = str(await (await conn.execute("explain " + newest, params, prepare=False)).fetchall())
        by_tag = params | {"metadata": '{"n": 77}'}
        plan_by_tag = str(await (await conn.execute("explain " + newest, by_tag, prepare=False)).fetchall())
    assert "thread_by_age" in plan
    assert "Sort" not in plan.split("Limit")[1].split("thread_pkey")[0]
    assert "thread_by_metadata" in plan_by_tag
