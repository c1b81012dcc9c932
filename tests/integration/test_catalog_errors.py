"""A graph that cannot be loaded stops the start, with the file, the line and the reason in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.catalog_projects import clean_imports, load, project, said
from waystation.errors import ConfigError

pytestmark = pytest.mark.anyio

GRAPH = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    said: str

builder = StateGraph(State).add_node("say", lambda s: {"said": "hello"}).add_edge(START, "say").add_edge("say", END)
graph = builder.compile()
"""


@pytest.fixture(autouse=True)
def _imports() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    with clean_imports():
        yield


async def complaint(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        await load(root)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


async def test_an_exception_at_import_names_the_innermost_line_of_the_user(tmp_path: Path) -> None:
    files = {"g.py": "from lib.deep import x\n", "lib/deep.py": "import json\n\n\nx = json.loads('{')\n"}
    message = await complaint(project(tmp_path, files, chat="./g.py:graph"))
    assert message.startswith("graph 'chat' (./g.py:graph) cannot be loaded: lib/deep.py, line 4: JSONDecodeError: ")


async def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    message = await complaint(project(tmp_path, {"g.py": "x = 1\ndef (:\n"}, chat="./g.py:graph"))
    assert "g.py, line 2: SyntaxError: invalid syntax" in message


async def test_a_missing_package_says_what_to_do(tmp_path: Path) -> None:
    message = await complaint(project(tmp_path, {"g.py": "\nimport not_there\n"}, chat="./g.py:graph"))
    assert "g.py, line 2: ModuleNotFoundError: No module named 'not_there'; install it, or " in message


async def test_a_missing_file_suggests_the_one_that_was_meant(tmp_path: Path) -> None:
    message = await complaint(project(tmp_path, {"agent.py": GRAPH}, chat="./agnet.py:graph"))
    assert "agnet.py does not exist; did you mean 'agent.py'?" in message


async def test_a_missing_module_is_named(tmp_path: Path) -> None:
    message = await complaint(project(tmp_path, {}, chat="no.such:graph"))
    assert "graph 'chat' (no.such:graph) cannot be loaded: ModuleNotFoundError" in message


async def test_a_missing_name_suggests_the_one_that_was_meant(tmp_path: Path) -> None:
    message = await complaint(project(tmp_path, {"g.py": GRAPH}, chat="./g.py:grahp"))
    assert "has no 'grahp'; did you mean 'graph'?" in message


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("thing = 3", "a int is no graph"),
        ("thing = None", "a NoneType is no graph"),
        ("class thing: pass", "the class thing is no graph"),
        ("def thing(state: State): ...", "'state' cannot be filled"),
        ("def thing(a, b): ...", "'a' cannot be filled"),
        ("thing = StateGraph(State)", "ValueError: Graph must have an entrypoint"),
    ],
)
async def test_an_object_of_another_kind_is_refused(tmp_path: Path, definition: str, reason: str) -> None:
    message = await complaint(project(tmp_path, {"g.py": f"{GRAPH}\n{definition}\n"}, chat="./g.py:thing"))
    assert reason in message


async def test_a_script_that_exits_when_imported_does_not_end_the_server_silently(tmp_path: Path) -> None:
    message = await complaint(project(tmp_path, {"g.py": "import sys\nsys.exit(3)\n"}, chat="./g.py:graph"))
    assert "g.py, line 2: SystemExit: 3" in message


async def test_a_module_that_failed_is_not_left_half_imported(tmp_path: Path) -> None:
    root = project(tmp_path, {"odd-name.py": "1 / 0\n"}, chat="./odd-name.py:graph")
    await complaint(root)
    assert not [name for name in sys.modules if name.startswith("project_odd_name")]


async def test_a_module_may_run_a_loop_of_its_own_when_imported(tmp_path: Path) -> None:
    text = f"import asyncio\nasyncio.run(asyncio.sleep(0))\n{GRAPH}"
    catalog = await load(project(tmp_path, {"g.py": text}, chat="./g.py:graph"))
    assert await said(catalog, "chat") == "hello"
    await catalog.close()


async def test_a_file_called_like_an_installed_package_is_still_the_users(tmp_path: Path) -> None:
    catalog = await load(
        project(
            tmp_path, {"json.py": GRAPH, "agents/httpx.py": GRAPH}, a="./json.py:graph", b="./agents/httpx.py:graph"
        )
    )
    assert await said(catalog, "a") == "hello"
    assert await said(catalog, "b") == "hello"
    await catalog.close()


async def test_siblings_of_a_file_can_be_imported_from_it(tmp_path: Path) -> None:
    files = {"agents/words.py": "WORDS = 'hello'\n", "agents/g.py": f"from words import WORDS\n{GRAPH}"}
    catalog = await load(project(tmp_path, files, chat="./agents/g.py:graph"))
    assert await said(catalog, "chat") == "hello"
    await catalog.close()


async def test_only_folders_of_the_project_are_watched(tmp_path: Path) -> None:
    files = {
        "g.py": GRAPH,
        "lib/a.py": "",
        "node_modules/x/y.py": "",
        ".venv/lib/z.py": "",
        "lib/__pycache__/a.pyc": "",
    }
    catalog = await load(project(tmp_path, files, chat="./g.py:graph"))
    watched = {path for path in catalog.watched_paths() if "__pycache__" not in path.name}
    assert watched == {tmp_path, tmp_path / "lib"}
    assert catalog.watched_paths() == tuple(sorted(watched))
    await catalog.close()
