"""The official JavaScript client against a live server. Needs Node.js and npm, which install it beside the script.

The scenarios are in `js/sdk.mjs`, which a person may run as well. Their results are checked there and named here.
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
    node = await asyncio.create_subprocess_exec(
        "node",
        "sdk.mjs",
        live_server.url,
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
    results: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert {result["scenario"] for result in results} == SCENARIOS
