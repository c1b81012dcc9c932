"""A process as the version before this one would run it: our code, with the statements that version sends and those of
its modules that read what is stored otherwise than ours do.

`tests/fixtures/previous_version` holds them; whoever releases replaces them by the ones just released.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx

import waystation_db
from chaos.fleet import PROJECT, Fleet
from ports import free_port
from waystation_db.sql import parse

BEFORE = Path(__file__).parents[1] / "fixtures" / "previous_version"
QUERIES, MODULES = BEFORE / "queries", BEFORE / "modules"


def package_before(directory: Path) -> Path:
    """A source root whose waystation_db has the statements and the modules of the version before."""
    package = directory / "waystation_db"
    shutil.copytree(Path(waystation_db.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for source in QUERIES.glob("*.sql"):
        ours = package / "queries" / source.name
        before = source.read_text()
        known = parse(before, source.name)
        new = [one for one in parse(ours.read_text(), source.name).items() if one[0] not in known]
        # What only this version asks is asked still: it is the old statements that have to go on working.
        added = "".join(f"\n-- name: {name}\n{text};\n" for name, text in new)
        ours.write_text(before + added)
    for source in MODULES.glob("*.py"):
        shutil.copy(source, package / source.name)
    return directory


class Elder:
    """A process of the version before, in a fleet's environment."""

    def __init__(self, fleet: Fleet, root: Path, *command: str, project: Path = PROJECT) -> None:
        self.port = free_port()
        flags = ("--host", "--port") if command[0] == "serve" else ("--health-host", "--health-port")
        config = str(project / "langgraph.json")
        arguments = [*command, "-c", config, flags[0], "127.0.0.1", flags[1], str(self.port)]
        self._log = fleet.directory / f"elder-{self.port}.log"
        environment = fleet.environment | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "waystation.cli", *arguments],
                env={**environment, "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ready(self) -> Elder:
        deadline = time.monotonic() + 60
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            while True:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 60)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]
