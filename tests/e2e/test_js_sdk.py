"""The official JavaScript client against a live server. Needs Node.js and npm, which install it beside the script.

The scenarios are in `js/sdk.mjs`, and `js/surface.mjs` calls each public method of two versions of the client, which
it finds by reflection. A person may run them as well. Their results are checked there and named here.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from live_server import LiveServer
from services import once_per_run

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="Node.js is not here"),
]

SCRIPTS = Path(__file__).parent / "js"

SCENARIOS = {
    *("threads", "assistants", "streamMessages", "streamValuesAndUpdates", "subgraphs", "interruptAndResume"),
    *("historyAndFork", "cancel", "leaving", "join", "reconnect", "stateless", "multitask", "failure"),
    *("versions", "crons", "store"),
}

METHODS = {
    "assistants": "get getGraph getSchemas getSubgraphs create update delete search count getVersions setLatest",
    "threads": "get create copy update delete search count getState updateState patchState getHistory joinStream",
    "runs": "stream create createBatch wait list get cancel join joinStream delete",
    "crons": "createForThread create update delete search count",
    "store": "putItem getItem deleteItem searchItems listNamespaces",
}
"""The public methods of both versions of the client."""

STREAM = (
    "threadId assistantId messages values output toolCalls subgraphs subagents audio images video files extensions "
    "interrupted interrupts ordering submitRun respondInput onEvent onError startLifecycleWatcher close subscribe "
    "run.start agent.getTree input.respond input.inject state.get state.listCheckpoints state.fork"
)
SINCE_STREAMS = {"threads": "prune stream", "runs": "cancelMany", "sse": STREAM, "websocket": STREAM}
"""What the version with thread streams has besides, over each of its transports."""


@pytest.fixture(scope="session")
def scripts(run_dir: Path) -> Path:
    """The folder of the scripts, with what they need installed as the lock file says."""
    with once_per_run(run_dir, "npm"):
        installed = SCRIPTS / "node_modules" / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < (SCRIPTS / "package-lock.json").stat().st_mtime:
            done = subprocess.run(
                ["npm", "ci", "--no-progress", "--ignore-scripts"],
                cwd=SCRIPTS,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    return SCRIPTS


async def test_every_scenario_of_the_javascript_client_works(scripts: Path, live_server: LiveServer) -> None:
    results = await _run(scripts, "sdk.mjs", live_server.url)
    assert {result["scenario"] for result in results} == SCENARIOS


@pytest.mark.parametrize(
    ("package", "groups"),
    [
        pytest.param("@langchain/langgraph-sdk", [METHODS], id="2.0.0"),
        pytest.param("langgraph-sdk-1", [METHODS, SINCE_STREAMS], id="1.15.0"),
    ],
)
async def test_every_method_of_the_javascript_client_works(
    scripts: Path, live_server: LiveServer, package: str, groups: list[dict[str, str]]
) -> None:
    results = await _run(scripts, "surface.mjs", package, live_server.url)
    expected = [f"{prefix}.{name}" for group in groups for prefix, names in group.items() for name in names.split()]
    assert sorted(result["method"] for result in results) == sorted(expected)
    assert all(result["ok"] for result in results)


async def _run(scripts: Path, *arguments: str) -> list[dict[str, Any]]:
    """The lines that a script says, of which each is JSON. It must end well."""
    node = await asyncio.create_subprocess_exec(
        "node",
        "--experimental-websocket",  # for Node 20; later ones have it anyway
        *arguments,
        cwd=scripts,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            out, err = await node.communicate()
    finally:
        if node.returncode is None:
            node.kill()
    assert node.returncode == 0, out.decode() + err.decode()
    return [json.loads(line) for line in out.splitlines()]
