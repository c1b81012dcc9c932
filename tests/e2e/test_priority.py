"""`priority.path`: which waiting runs start first is what the project's function says of their threads."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from cli_servers import Command, until
from live_server import live_server_on
from waystation.config import Settings
from waystation.runs.priority import priority_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::langgraph_sdk.encryption.LangGraphBetaWarning"),
    pytest.mark.timeout(400),  # some start a process, which imports everything
]

GRAPH = """
import asyncio
from pathlib import Path
from typing import TypedDict
from langgraph.graph import START, StateGraph

HERE = Path(__file__).parent

class State(TypedDict, total=False):
    name: str
    wait: bool

async def node(state: State):
    with open(HERE / "order", "a") as order:
        order.write(state["name"] + "\\n")
    while state.get("wait") and not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return {}

graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
"""

PRIORITY = """
import asyncio, json, time
from pathlib import Path
from langgraph_sdk import Priority, PriorityContext

HERE = Path(__file__).parent
priority = Priority()

@priority.assign
async def assign(ctx: PriorityContext):
    with open(HERE / "asked", "a") as asked:
        asked.write(json.dumps({
            "user": ctx.user.identity, "permissions": list(ctx.permissions), "thread_id": ctx.thread_id,
            "thread": ctx.thread_metadata, "graph_id": ctx.graph_id, "assistant": ctx.assistant_metadata,
            "run": ctx.run_metadata, "cron_id": ctx.cron_id,
        }) + "\\n")
    wish = {**ctx.thread_metadata, **ctx.run_metadata}.get("wish")
    if wish == "raise":
        raise RuntimeError("no idea")
    if wish == "slow":
        await asyncio.sleep(60)
    return wish if wish is None or isinstance(wish, dict) else {"priority": wish}
"""


class Waiting:
    """A server with one slot, which a first run holds, so that others wait."""

    def __init__(self, client: httpx.Client, folder: Path) -> None:
        self.client = client
        self.folder = folder

    def thread(self, **metadata: Any) -> str:
        return self.client.post("/threads", json={"metadata": metadata}).raise_for_status().json()["thread_id"]

    def run(self, thread: str, name: str, *, metadata: dict[str, Any] | None = None, wait: bool = False) -> str:
        body = {"assistant_id": "g", "input": {"name": name, "wait": wait}, "metadata": metadata or {}}
        return self.client.post(f"/threads/{thread}/runs", json=body).raise_for_status().json()["run_id"]

    def let_go(self) -> list[str]:
        """Every run runs; their names in the order in which they did."""
        (self.folder / "go").touch()
        metrics = self.client.get
        until(
            lambda: metrics("/metrics", params={"format": "json"}).json()["queue"]["n_pending"] == 0, "all have begun"
        )
        until(
            lambda: metrics("/metrics", params={"format": "json"}).json()["queue"]["n_running"] == 0, "all have ended"
        )
        return (self.folder / "order").read_text().split()

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]


@contextmanager
def one_slot(database_uri: str, folder: Path) -> Generator[Waiting]:
    (folder / "priority_graph.py").write_text(GRAPH)
    (folder / "priority_rule.py").write_text(PRIORITY)
    keys = {"graphs": {"g": "./priority_graph.py:graph"}, "priority": {"path": "./priority_rule.py:priority"}}
    (folder / "langgraph.json").write_text(json.dumps({"dependencies": ["."], **keys}))
    settings = Settings(n_jobs_per_worker=1)
    with (
        pytest.MonkeyPatch.context() as patched,
        live_server_on(database_uri, project=folder, settings=settings) as server,
        httpx.Client(base_url=server.url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client,
    ):
        patched.setattr("waystation.runs.priority.DEADLINE_S", 60.0)
        waiting = Waiting(client, folder)
        waiting.run(waiting.thread(), "holder", wait=True)
        until(lambda: (folder / "order").exists(), "the slot is taken")
        yield waiting


def kept(database_uri: str, thread: str) -> int | None:
    with psycopg.connect(database_uri) as conn:
        row = conn.execute("select priority from thread where thread_id = %s", [thread]).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def waiting(database_uri: str, tmp_path: Path) -> Generator[Waiting]:
    with one_slot(database_uri, tmp_path) as waiting:
        yield waiting


def test_lower_numbers_start_first_and_equal_ones_in_their_order(waiting: Waiting) -> None:
    for name, wish in [("last", 5), ("usual", None), ("first", -5), ("second", -1), ("third", -1)]:
        waiting.run(waiting.thread(wish=wish), name)
    assert waiting.let_go() == ["holder", "first", "second", "third", "usual", "last"]


def test_a_thread_is_asked_about_once_and_keeps_its_answer(waiting: Waiting, database_uri: str) -> None:
    thread = waiting.thread(wish=3, colour="red")
    waiting.run(thread, "a", metadata={"run": 1})
    waiting.run(thread, "b", metadata={"wish": -5})
    asked = [one for one in waiting.asked() if one["thread_id"] == thread]

    assert len(asked) == 1
    assert asked[0] == {
        "user": "",
        "permissions": [],
        "thread_id": thread,
        "thread": {"wish": 3, "colour": "red"},
        "graph_id": "g",
        "assistant": {"created_by": "system"},
        "run": {"run": 1},
        "cron_id": None,
    }
    assert kept(database_uri, thread) == 3
    waiting.let_go()


def test_a_run_that_makes_its_thread_leaves_the_answer_with_it(waiting: Waiting, database_uri: str) -> None:
    body = {"assistant_id": "g", "input": {"name": "x"}, "metadata": {"wish": -2}, "on_completion": "keep"}
    made = waiting.client.post("/runs", json=body).raise_for_status().json()
    assert waiting.asked()[-1]["thread_id"] is None
    assert kept(database_uri, made["thread_id"]) == -2
    waiting.run(waiting.thread(), "y")
    assert waiting.let_go() == ["holder", "x", "y"]


@pytest.mark.parametrize("wish", ["raise", {"priority": 6}, {"priority": "1"}, {"fairness_group": "x" * 257}])
def test_a_function_that_fails_keeps_nobody_from_running_and_is_asked_again(
    waiting: Waiting, database_uri: str, wish: object
) -> None:
    thread = waiting.thread(wish=wish)
    waiting.run(thread, "a")
    assert kept(database_uri, thread) is None
    waiting.run(thread, "b")
    assert len([one for one in waiting.asked() if one["thread_id"] == thread]) == 2
    assert waiting.let_go() == ["holder", "a", "b"]


def test_a_slow_function_is_not_waited_for(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waystation.runs.priority.DEADLINE_S", 0.2)
    waiting.run(waiting.thread(wish="slow"), "a")
    assert waiting.let_go() == ["holder", "a"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("priority = object()", "expected a langgraph_sdk.Priority, found a object"),
        (
            "from langgraph_sdk import Priority\npriority = Priority()",
            r"no function is registered with @priority\.assign",
        ),
        ("1 / 0", r"priority_rule\.py, line 1: ZeroDivisionError"),
    ],
)
def test_a_rule_that_cannot_be_used_stops_the_start(database_uri: str, tmp_path: Path, rule: str, said: str) -> None:
    (tmp_path / "priority_graph.py").write_text(GRAPH)
    (tmp_path / "priority_rule.py").write_text(rule)
    keys = {"graphs": {"g": "./priority_graph.py:graph"}, "priority": {"path": "./priority_rule.py:priority"}}
    (tmp_path / "langgraph.json").write_text(json.dumps({"dependencies": ["."], **keys}))
    with Command.running("serve", "--port", "0", cwd=tmp_path, environ={"DATABASE_URI": database_uri}) as command:
        command.until_says(said)
        assert command.ended() == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(None, 0), ({}, 0), ({"priority": None}, 0), ({"priority": -5}, -5), ({"fairness_group": "a", "priority": 5}, 5)],
)
def test_what_the_function_may_return(settings: object, expected: int) -> None:
    assert priority_of(settings) == expected


@pytest.mark.parametrize("settings", [3, "x", {"priority": 5.0}, {"priority": True}, {"fairness_group": 1}])
def test_what_it_may_not_return(settings: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        priority_of(settings)
