"""The saver under real graphs: the fenced view is the one used everywhere, and LangGraph's behaviours are there."""

from __future__ import annotations

import asyncio
import operator
import uuid
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from integration.checkpointer_world import config_of, count, opened, running_run
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.errors import Fenced
from waystation_db.pool import Database
from waystation_db.rows import RunKey

pytestmark = pytest.mark.anyio


class State(TypedDict):
    n: int
    log: Annotated[list[str], operator.add]


def _count(state: State) -> dict[str, Any]:
    return {"n": state["n"] + 1, "log": [f"saw {state['n']}"]}


def _compiled(*, subgraph: bool = False) -> Any:
    builder: Any = StateGraph(State)
    if subgraph:
        inner: Any = StateGraph(State)
        inner.add_node("inside", _count)
        inner.add_edge(START, "inside")
        builder.add_node("first", inner.compile())
    else:
        builder.add_node("first", _count)
    builder.add_node("second", _count)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile()


def _run_config(key: RunKey, saver: PostgresCheckpointer) -> RunnableConfig:
    return {"configurable": {"thread_id": key.thread_id, "__pregel_checkpointer": saver}}


async def test_graph_and_subgraph_save_through_the_view_of_their_run(db: Database) -> None:
    async with opened(db) as saver:
        key = await running_run(db)
        graph = _compiled(subgraph=True)

        result = await graph.ainvoke({"n": 0, "log": []}, _run_config(key, saver.for_run(key, 1)))

        assert result["n"] == 2
        async with db.connection() as conn:
            rows = await (
                await conn.execute(
                    "select checkpoint_ns, metadata ->> 'run_id' from checkpoints order by checkpoint_id"
                )
            ).fetchall()
    assert {run_id for _, run_id in rows} == {key.run_id}
    assert any(namespace.startswith("first:") for namespace, _ in rows)


@pytest.mark.parametrize("subgraph", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_stale_attempt_of_a_graph_ends_in_fenced_and_writes_nothing(
    db: Database, durability: str, subgraph: bool
) -> None:
    async with opened(db) as saver:
        key = await running_run(db, attempt=2)
        graph = _compiled(subgraph=subgraph)

        with pytest.raises(Fenced):
            await graph.ainvoke({"n": 0, "log": []}, _run_config(key, saver.for_run(key, 1)), durability=durability)

        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            assert await count(db, table, key.thread_id) == 0


async def test_state_is_what_langgraphs_own_saver_stores_and_reads(db: Database, database_uri: str) -> None:
    graph, ours, theirs = _compiled(), str(uuid.uuid4()), str(uuid.uuid4())
    async with opened(db) as saver, AsyncPostgresSaver.from_conn_string(database_uri) as stock:
        for thread_id, own in ((ours, saver), (theirs, stock)):
            graph.checkpointer = own
            await graph.ainvoke({"n": 0, "log": ["x"]}, config_of(thread_id))

        for thread_id in (ours, theirs):
            histories: list[Any] = []
            for reader in (saver, stock):
                graph.checkpointer = reader
                histories.append([state async for state in graph.aget_state_history(config_of(thread_id))])
            assert histories[0] == histories[1]
            assert histories[0][0].values == {"n": 2, "log": ["x", "saw 0", "saw 1"]}
        assert [state.values for state in histories[0]] == [
            {"n": 2, "log": ["x", "saw 0", "saw 1"]},
            {"n": 1, "log": ["x", "saw 0"]},
            {"n": 0, "log": ["x"]},
            {"log": []},
        ]


async def test_interrupt_resume_and_time_travel(db: Database) -> None:
    def ask(state: State) -> dict[str, Any]:
        return {"log": [interrupt("how many?")]}

    builder: Any = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("after", _count)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "after")
    async with opened(db) as saver:
        graph = builder.compile(checkpointer=saver)
        config = config_of(str(uuid.uuid4()))

        await graph.ainvoke({"n": 0, "log": []}, config)
        waiting = await graph.aget_state(config)
        assert [one.value for one in waiting.interrupts] == ["how many?"]
        done = await graph.ainvoke(Command(resume="five"), config)
        assert done == {"n": 1, "log": ["five", "saw 0"]}
        fork = await graph.aupdate_state(waiting.config, {"n": 10, "log": ["forked"]}, as_node="ask")
        assert await graph.ainvoke(None, fork) == {"n": 11, "log": ["forked", "saw 10"]}
        assert (await graph.aget_state(config)).values["n"] == 11


async def test_messages_come_back_as_they_were(db: Database) -> None:
    messages: list[AnyMessage] = [HumanMessage("hi\0 there", id="1"), AIMessage("", id="2")]
    messages[1] = AIMessage(
        "yes", id="2", tool_calls=[{"name": "t", "args": {"a": [1, None]}, "id": "c", "type": "tool_call"}]
    )

    def _answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [messages[1]]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("answer", _answer)
    builder.add_edge(START, "answer")
    async with opened(db) as saver:
        graph = builder.compile(checkpointer=saver)
        config = config_of(str(uuid.uuid4()))
        await graph.ainvoke({"messages": [messages[0]]}, config)
        assert (await graph.aget_state(config)).values == {"messages": messages}


async def test_sync_graph_works_from_another_thread_and_is_refused_on_the_loop(db: Database) -> None:
    async with opened(db) as saver:
        graph = _compiled()
        graph.checkpointer = saver
        config = config_of(str(uuid.uuid4()))

        assert (await asyncio.to_thread(graph.invoke, {"n": 0, "log": []}, config))["n"] == 2
        assert (await asyncio.to_thread(graph.get_state, config)).values["n"] == 2
        with pytest.raises(asyncio.InvalidStateError):
            graph.update_state(config, {"n": 5})
        with pytest.raises(asyncio.InvalidStateError):
            saver.put_writes(config, [("n", 1)], "task")


async def test_saver_works_without_prepared_statements(database_uri: str) -> None:
    async with Database(database_uri, prepare=False) as db, opened(db) as saver:
        key = await running_run(db)
        await _compiled().ainvoke({"n": 0, "log": []}, _run_config(key, saver.for_run(key, 1)))
        async with db.connection() as conn:
            row = await (await conn.execute("select count(*) from pg_prepared_statements")).fetchone()
        assert row == (0,)
        assert await count(db, "checkpoints", key.thread_id) == 4
