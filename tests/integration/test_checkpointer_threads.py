"""What is done with whole threads: rolled-back runs, copies, retention, storage, histories of delta channels."""

from __future__ import annotations

import asyncio
import operator
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from integration.checkpointer_world import (
    METADATA,
    checkpoint_of,
    config_of,
    count,
    next_run,
    opened,
    put,
    running_run,
    values_of,
)
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.errors import Fenced
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def _extended(value: list[str], updates: Sequence[list[str]]) -> list[str]:
    return [*value, *(item for update in updates for item in update)]


class Delta(TypedDict):
    log: Annotated[list[str], DeltaChannel(_extended)]


def _add(state: dict[str, list[str]]) -> dict[str, list[str]]:
    return {"log": [f"{len(state['log'])}"]}


def _graph(saver: PostgresCheckpointer | None = None) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("add", _add)
    builder.add_edge(START, "add")
    return builder.compile(checkpointer=saver)


@pytest.fixture
async def saver(db: Database) -> AsyncIterator[PostgresCheckpointer]:
    async with opened(db) as saver:
        yield saver


async def _rows(db: Database, thread_id: str) -> list[int]:
    return [await count(db, table, thread_id) for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")]


async def test_rolled_back_run_leaves_the_state_and_the_rows_from_before_it(
    db: Database, saver: PostgresCheckpointer
) -> None:
    first, neighbour = await running_run(db), str(uuid.uuid4())
    thread_id, graph = first.thread_id, _graph()
    await graph.ainvoke(
        {"log": ["a"]},
        {"configurable": {"thread_id": thread_id, "__pregel_checkpointer": saver.for_run(first, 1)}},
    )
    await _graph(saver).ainvoke({"log": ["z"]}, config_of(neighbour))
    before = await _rows(db, thread_id)
    second = await next_run(db, thread_id)
    await graph.ainvoke(
        {"log": ["b"]},
        {
            "configurable": {"thread_id": thread_id, "__pregel_checkpointer": saver.for_run(second, 1)},
            "metadata": {"run_id": "something else"},
        },
    )
    assert await values_of(saver, thread_id) == {"log": ["a", "1", "b", "3"]}

    await saver.adelete_for_runs([second.run_id], thread_id=thread_id)

    assert await values_of(saver, thread_id) == {"log": ["a", "1"]}
    assert await _rows(db, thread_id) == before
    assert await values_of(saver, neighbour) == {"log": ["z", "1"]}


class Asked(TypedDict):
    answers: Annotated[list[str], operator.add]


def _asking_graph() -> Any:
    def ask(state: Asked) -> Asked:
        return {"answers": [interrupt("first?"), interrupt("second?")]}

    def quick(state: Asked) -> Asked:
        return {"answers": ["quick"]}

    builder: Any = StateGraph(Asked)
    builder.add_node("ask", ask)
    builder.add_node("quick", quick)
    builder.add_edge(START, "ask")
    builder.add_edge(START, "quick")
    return builder.compile()


async def _writes(db: Database, thread_id: str) -> list[Any]:
    async with db.connection() as conn:
        cursor = await conn.execute(
            "select * from checkpoint_writes where thread_id = %s order by 1, 2, 3, 4, 5", (thread_id,)
        )
        return await cursor.fetchall()


@pytest.mark.parametrize("answers", [["one"], ["one", "two"]])
async def test_rolled_back_answer_leaves_the_question_as_it_was(
    db: Database, saver: PostgresCheckpointer, answers: list[str]
) -> None:
    graph = _asking_graph()
    first = await running_run(db)
    thread_id = first.thread_id
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    await graph.ainvoke({"answers": []}, _with(config, saver.for_run(first, 1)))
    graph.checkpointer = saver
    before, writes = await graph.aget_state(config), await _writes(db, thread_id)

    for _ in range(2):  # again: what the first one remembered must not be in the way
        second = await next_run(db, thread_id)
        for answer in answers:
            await graph.ainvoke(Command(resume=answer), _with(config, saver.for_run(second, 1)))
        assert await graph.aget_state(config) != before
        await saver.adelete_for_runs([second.run_id], thread_id=thread_id)

        assert await graph.aget_state(config) == before
        assert await _writes(db, thread_id) == writes
    third = await next_run(db, thread_id)
    await graph.ainvoke(Command(resume="one"), _with(config, saver.for_run(third, 1)))
    done = await graph.ainvoke(Command(resume="two"), _with(config, saver.for_run(third, 1)))
    assert done == {"answers": ["one", "two", "quick"]}


def _with(config: RunnableConfig, view: PostgresCheckpointer) -> RunnableConfig:
    return {"configurable": {**config.get("configurable", {}), "__pregel_checkpointer": view}}


async def test_rolled_back_run_can_put_nothing_more(db: Database, saver: PostgresCheckpointer) -> None:
    key = await running_run(db)
    view = saver.for_run(key, 1)
    late = [asyncio.ensure_future(put(view, key.thread_id, n=n)) for n in range(3)]
    await asyncio.sleep(0)
    for one in late:
        one.cancel()

    await saver.adelete_for_runs([key.run_id], thread_id=key.thread_id)
    with pytest.raises(Fenced):
        await put(view, key.thread_id, n=4)

    assert await saver.aget_tuple(config_of(key.thread_id)) is None


async def test_copy_goes_its_own_way(db: Database, saver: PostgresCheckpointer) -> None:
    source, target, graph = str(uuid.uuid4()), str(uuid.uuid4()), _graph(saver)
    await graph.ainvoke({"log": ["a"]}, config_of(source))

    await saver.acopy_thread(source, target)
    await saver.acopy_thread(source, target)
    assert await _rows(db, target) == await _rows(db, source)
    await graph.ainvoke({"log": ["b"]}, config_of(target))

    assert await values_of(saver, source) == {"log": ["a", "1"]}
    assert await values_of(saver, target) == {"log": ["a", "1", "b", "3"]}


async def test_keeping_the_latest_keeps_the_state_and_drops_the_rest(db: Database, saver: PostgresCheckpointer) -> None:
    thread_id, graph = str(uuid.uuid4()), _graph(saver)
    for text in ("a", "b", "c"):
        await graph.ainvoke({"log": [text]}, config_of(thread_id))

    await saver.aprune([thread_id], strategy="keep_latest")

    assert await values_of(saver, thread_id) == {"log": ["a", "1", "b", "3", "c", "5"]}
    assert await count(db, "checkpoints", thread_id) == 1
    assert await count(db, "checkpoint_blobs", thread_id) == 1
    await graph.ainvoke({"log": ["d"]}, config_of(thread_id))
    assert (await values_of(saver, thread_id))["log"][-2:] == ["d", "7"]


async def test_deleting_a_thread_leaves_nothing_of_it_and_others_alone(
    db: Database, saver: PostgresCheckpointer
) -> None:
    gone, stays = str(uuid.uuid4()), str(uuid.uuid4())
    for thread_id in (gone, stays):
        await _graph(saver).ainvoke({"log": ["a"]}, config_of(thread_id))
    await saver.adelete_thread(gone)
    assert await _rows(db, gone) == [0, 0, 0]
    assert await values_of(saver, stays) == {"log": ["a", "1"]}


async def test_storage_counts_versions_and_bytes_by_channel(db: Database, saver: PostgresCheckpointer) -> None:
    thread_id = str(uuid.uuid4())
    first = checkpoint_of(n=12, things=["x"])
    config = await saver.aput(config_of(thread_id), first, METADATA, first["channel_versions"])
    second = checkpoint_of(n=7)
    second["channel_values"]["things"] = ["x"]
    second["channel_versions"]["things"] = first["channel_versions"]["things"]
    await saver.aput(config, second, METADATA, {"n": second["channel_versions"]["n"]})
    await saver.aput_writes(config, [("n", 1), ("things", None)], "task")

    storage = await saver.storage(thread_id)

    assert storage["channel_values"] == {
        "count": 3,
        "bytes": 2 + 1 + 3,
        "by_channel": {"n": {"versions": 2, "bytes": 3}, "things": {"versions": 1, "bytes": 3}},
    }
    assert storage["pending_writes"] == {"count": 2, "bytes": 1}
    assert storage["checkpoints"]["count"] == 2
    assert storage["total_bytes"] == storage["checkpoints"]["bytes"] + 6 + 1
    empty = await saver.storage(str(uuid.uuid4()))
    assert (empty["total_bytes"], empty["channel_values"]["by_channel"]) == (0, {})


async def test_listing_filters_by_metadata_and_pages(saver: PostgresCheckpointer) -> None:
    thread_id = str(uuid.uuid4())
    configs: list[RunnableConfig] = []
    for step in range(4):
        checkpoint = checkpoint_of(n=step)
        metadata: Any = {"source": "loop", "step": step, "parents": {}, "tag": {"parity": step % 2}}
        configs.append(await saver.aput(config_of(thread_id), checkpoint, metadata, checkpoint["channel_versions"]))

    async def steps(**how: Any) -> list[Any]:
        return [one.checkpoint["channel_values"]["n"] async for one in saver.alist(config_of(thread_id), **how)]

    assert await steps() == [3, 2, 1, 0]
    assert await steps(limit=2) == [3, 2]
    assert await steps(before=configs[2]) == [1, 0]
    assert await steps(filter={"tag": {"parity": 1}}) == [3, 1]
    assert await steps(filter={"tag": {"parity": 1}}, before=configs[3], limit=1) == [1]


async def test_delta_channel_is_rebuilt_from_its_history(db: Database, saver: PostgresCheckpointer) -> None:
    builder: Any = StateGraph(Delta)
    builder.add_node("add", _add)
    builder.add_edge(START, "add")
    graph = builder.compile()
    run = await running_run(db)
    view = saver.for_run(run, 1)
    for text in ("a", "b", "c"):
        await graph.ainvoke(
            {"log": [text]}, {"configurable": {"thread_id": run.thread_id, "__pregel_checkpointer": view}}
        )

    graph.checkpointer = saver
    assert (await graph.aget_state(config_of(run.thread_id))).values == {"log": ["a", "1", "b", "3", "c", "5"]}
    assert await put(saver, str(uuid.uuid4()), n=1)
