"""Guards that a graph brings along, in a process that has no policy and does not know of them before they are used."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from langgraph_sdk import get_client

from live_server import Client, server_process

pytestmark = pytest.mark.anyio

GRAPHS = """
from decimal import Decimal

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def careful_model():
    from waystation_guards.budget import Budget, Limit, Prices, Rates
    from waystation_guards.guarded import guarded

    model = GenericFakeChatModel(messages=iter([AIMessage("four words, a cent", usage_metadata=usage)]))
    prices = Prices({"generic-fake-chat-model": Rates(input=Decimal(0), output=Decimal(2500))})
    return guarded(model, [Budget(Limit(0.015, scope="tenant"), prices=prices)])


async def on_the_loop(state):
    return {"messages": [await careful_model().ainvoke(state["messages"], max_tokens=4)]}


def in_a_thread(state):
    return {"messages": [careful_model().invoke(state["messages"], max_tokens=4)]}


def graph_of(node):
    return StateGraph(MessagesState).add_node("answer", node).add_edge(START, "answer").compile()


loop, thread = graph_of(on_the_loop), graph_of(in_a_thread)
"""

HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("graph", ["loop", "thread"])
async def test_guards_imported_by_the_first_run_stand_on_the_servers_database(
    database_uri: str, tmp_path: Path, graph: str
) -> None:
    (tmp_path / "graphs.py").write_text(GRAPHS)
    graphs = {name: f"./graphs.py:{name}" for name in ("loop", "thread")}
    (tmp_path / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    with server_process(database_uri, log=tmp_path / "log", project=tmp_path) as server:
        sdk: Client
        async with get_client(url=server.url) as sdk:
            first = await sdk.runs.wait(None, graph, input=HI)
            assert first["messages"][-1]["content"] == "four words, a cent"
            second = await sdk.runs.wait(None, graph, input=HI, raise_error=False)
            assert second["__error__"]["code"] == "budget_exceeded"
    with psycopg.connect(database_uri) as conn:
        paid = conn.execute("select cost_nano_usd from guard_ledger where kind = 'model'").fetchall()
    assert paid == [(10_000_000,)]
