"""Rows that an attacker wrote: loading them runs nothing, says what is wrong, and stays with that thread."""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from integration.checkpointer_world import METADATA, checkpoint_of, config_of, count, opened, put, values_of
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.errors import CorruptCheckpoint, DatabaseError
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._marker),))


def _call(code: int, *parts: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


def _rows(marker: Path) -> dict[str, tuple[str, bytes]]:
    target = str(marker)
    inner = ormsgpack.Ext(0, ormsgpack.packb(("os", "mkdir", target)))
    message = ("langchain_core.messages.human", "HumanMessage", {"content": inner}, "model_validate_json")
    return {
        "pickle": ("pickle", pickle.dumps(Bomb(marker))),
        "function of one argument": ("msgpack", _call(0, "os", "mkdir", target)),
        "function of positional arguments": ("msgpack", _call(1, "os", "mkdir", (target,))),
        "function of named arguments": ("msgpack", _call(2, "os", "mkdir", {"path": target})),
        "method": ("msgpack", _call(3, "pathlib", "Path", target, "mkdir")),
        "old pydantic": ("msgpack", _call(4, "subprocess", "run", {"args": ["mkdir", target]})),
        "pydantic": ("msgpack", _call(5, "subprocess", "Popen", {"args": ["mkdir", target]}, "x")),
        "built-in": ("msgpack", _call(0, "builtins", "exec", f"import os; os.mkdir({target!r})")),
        "inside a message": ("msgpack", _call(5, *message)),
        "dotted name": ("msgpack", _call(0, "os.path.os", "mkdir", target)),
        "unknown extension": ("msgpack", ormsgpack.packb(ormsgpack.Ext(99, b"x"))),
        "extension that is no object": ("msgpack", ormsgpack.packb(ormsgpack.Ext(0, b"\xc1"))),
        "constructor in JSON": (
            "json",
            b'{"lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", "prompt", "PromptTemplate"],'
            b' "kwargs": {"template": "{{ x }}", "template_format": "jinja2", "input_variables": ["x"]}}',
        ),
        "not JSON": ("json", b"{"),
        "truncated": ("msgpack", ormsgpack.packb({"a": ["long enough"] * 9})[:-5]),
        "empty": ("msgpack", b""),
        "promises more than it holds": ("msgpack", b"\xdd\xff\xff\xff\xff"),
        "nested too deeply": ("msgpack", b"\x91" * 100_000),
        "unknown type": ("shell", b"mkdir"),
        "not UTF-8": ("msgpack", b"\xa4\xff\xfe\xfd\xfc"),
    }


NAMES = list(_rows(Path("/nowhere")))


@pytest.fixture
async def saver(db: Database) -> AsyncIterator[PostgresCheckpointer]:
    async with opened(db) as saver:
        yield saver


async def _poison_blob(db: Database, thread_id: str, row: tuple[str, bytes]) -> None:
    async with db.connection() as conn:
        await conn.execute("update checkpoint_blobs set type = %s, blob = %s where thread_id = %s", (*row, thread_id))


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_value_is_an_error_of_its_thread_and_runs_nothing(
    db: Database, saver: PostgresCheckpointer, tmp_path: Path, name: str
) -> None:
    marker, victim, neighbour = tmp_path / "executed", str(uuid.uuid4()), str(uuid.uuid4())
    await put(saver, victim, things=["x"])
    await put(saver, neighbour, things=["x"])
    await _poison_blob(db, victim, _rows(marker)[name])

    with pytest.raises(CorruptCheckpoint):
        await saver.aget_tuple(config_of(victim))
    with pytest.raises(CorruptCheckpoint):
        [one async for one in saver.alist(config_of(victim))]

    assert not marker.exists()
    assert await values_of(saver, neighbour) == {"things": ["x"]}
    await saver.adelete_thread(victim)
    assert await count(db, "checkpoint_blobs", victim) == 0


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_pending_write_is_an_error_of_its_thread_and_runs_nothing(
    db: Database, saver: PostgresCheckpointer, tmp_path: Path, name: str
) -> None:
    marker, victim = tmp_path / "executed", str(uuid.uuid4())
    config = await put(saver, victim, n=1)
    await saver.aput_writes(config, [("things", ["x"])], "task")
    async with db.connection() as conn:
        await conn.execute(
            "update checkpoint_writes set type = %s, blob = %s where thread_id = %s", (*_rows(marker)[name], victim)
        )
    with pytest.raises(DatabaseError):
        await saver.aget_tuple(config)
    assert not marker.exists()


async def test_bombs_of_these_tests_do_explode_where_nobody_guards(tmp_path: Path) -> None:
    rows = _rows(tmp_path / "executed")
    pickle.loads(rows["pickle"][1])
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "checkpoint",
    ["[]", "1", '"x"', "{}", '{"v": "x"}', '{"v": 4, "id": "x", "channel_versions": [], "versions_seen": {}}'],
)
async def test_checkpoint_that_is_none_is_an_error_of_its_thread(
    db: Database, saver: PostgresCheckpointer, checkpoint: str
) -> None:
    victim = str(uuid.uuid4())
    await put(saver, victim, n=1)
    async with db.connection() as conn:
        await conn.execute("update checkpoints set checkpoint = %s::jsonb where thread_id = %s", (checkpoint, victim))
    with pytest.raises(DatabaseError):
        await saver.aget_tuple(config_of(victim))


async def test_graph_on_a_hostile_thread_fails_and_the_next_thread_runs(
    db: Database, saver: PostgresCheckpointer, tmp_path: Path
) -> None:
    class State(TypedDict):
        things: list[str]

    def add(state: State) -> State:
        return {"things": [*state["things"], "y"]}

    builder: Any = StateGraph(State)
    builder.add_node("add", add)
    builder.add_edge(START, "add")
    graph = builder.compile(checkpointer=saver)
    thread_id, marker = str(uuid.uuid4()), tmp_path / "executed"
    victim, neighbour = config_of(thread_id), config_of(str(uuid.uuid4()))
    await graph.ainvoke({"things": ["x"]}, victim)
    await _poison_blob(db, thread_id, _rows(marker)["function of one argument"])

    with pytest.raises(CorruptCheckpoint):
        await graph.ainvoke(None, victim)

    assert await graph.ainvoke({"things": ["x"]}, neighbour) == {"things": ["x", "y"]}
    assert not marker.exists()


async def test_pickle_is_never_written(saver: PostgresCheckpointer, db: Database) -> None:
    checkpoint = checkpoint_of(thing=Bomb(Path("/nowhere")))
    with pytest.raises(TypeError):
        await saver.aput(config_of("t"), checkpoint, METADATA, checkpoint["channel_versions"])
    assert await count(db, "checkpoints", "t") == 0
