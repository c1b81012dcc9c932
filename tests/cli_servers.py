"""The command `waystation` in processes of its own, for tests that look at it from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

DEADLINE_S = 120.0

STEPS = """
import asyncio, operator, os
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph

HERE = Path(__file__).parent
ANSWER = "first"

class State(TypedDict, total=False):
    wait_at: int
    done: Annotated[list[int], operator.add]
    answer: str

def step(number):
    async def node(state: State):
        with open(HERE / "journal", "a") as journal:
            journal.write(f"{number} {os.getpid()}\\n")
        while state.get("wait_at") == number and not (HERE / "go").exists():
            await asyncio.sleep(0.01)
        return {"done": [number], "answer": ANSWER}
    return node

builder = StateGraph(State)
for number in (1, 2, 3):
    builder.add_node(str(number), step(number))
builder.add_edge(START, "1")
builder.add_edge("1", "2")
builder.add_edge("2", "3")
builder.add_edge("3", END)
graph = builder.compile()
"""
"""Three steps. Each writes its number and its process into `journal`; step `wait_at` waits for the file `go`."""


class Project:
    """A project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        config = {"dependencies": ["."], "graphs": {"steps": "./steps.py:graph"}}
        (folder / "langgraph.json").write_text(json.dumps(config))
        self.write(STEPS)

    def write(self, code: str) -> None:
        (self.folder / "steps.py").write_text(code)

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def journal(self) -> list[tuple[int, int]]:
        """Step and process of every execution of a step."""
        try:
            lines = (self.folder / "journal").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(int(number), int(pid)) for number, pid in (line.split() for line in lines)]

    def until_step(self, number: int, *, times: int = 1) -> None:
        until(lambda: [n for n, _ in self.journal()].count(number) >= times, f"step {number} has begun")


class Command:
    """A running `waystation ...`."""

    def __init__(self, *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None) -> None:
        own = ("DATABASE", "POSTGRES", "REDIS", "LANGSERVE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "waystation.cli", *arguments],
            cwd=cwd,
            env={**kept, "PYTHONUNBUFFERED": "1", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self._heard = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @classmethod
    @contextmanager
    def running(cls, *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None) -> Generator[Self]:
        """Killed at the end of the block, with whatever it started."""
        command = cls(*arguments, cwd=cwd, environ=environ)
        try:
            yield command
        except BaseException:
            sys.stderr.write(f"waystation {' '.join(arguments)} said:\n{command.output}\n")  # pytest shows it
            raise
        finally:
            command.kill()
            command.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it serves; waits until it says so."""
        return self.until_says(r'(?:API +|Serving at )(http[^\s"]+)')[1]

    def until_says(self, pattern: str, *, times: int = 1) -> re.Match[str]:
        """Wait for its output to hold the pattern that often; the last match."""
        deadline = time.monotonic() + DEADLINE_S
        with self._heard:
            while len(found := list(re.finditer(pattern, self.output))) < times:
                left = deadline - time.monotonic()
                ended = self._process.poll() is not None and not self._reading.is_alive()
                assert left > 0, f"has not said {pattern!r} in time:\n{self.output}"
                assert not ended, f"never said {pattern!r}:\n{self.output}"
                self._heard.wait(min(left, 0.5))
        return found[-1]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for its exit code."""
        code = self._process.wait(DEADLINE_S)
        self._reading.join(DEADLINE_S)
        return code

    def kill(self) -> None:
        """kill -9 of the command alone; its children have to look after themselves."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Hear the rest of what it and its children say; all of them have ended."""
        self._reading.join(DEADLINE_S)
        assert self._process.stdout is not None
        assert not self._reading.is_alive(), f"something stayed behind:\n{self.output}"
        self._process.stdout.close()

    def children(self) -> dict[int, str]:
        """Process ids and command lines of its children."""
        listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(self.pid)], capture_output=True, text=True)
        rows = (line.strip().partition(" ") for line in listed.stdout.splitlines())
        return {int(pid): args for pid, _, args in rows}

    def child(self, what: str) -> int:
        """The child whose command line holds `what`."""
        return next(pid for pid, args in self.children().items() if what in args)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self.output += line
                self._heard.notify_all()


class Client:
    """The few requests that these tests make."""

    def __init__(self, url: str) -> None:
        # Keeps no connection, so that there is nothing to close.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=DEADLINE_S, limits=limits)

    def run(self, payload: dict[str, Any]) -> Any:
        return self.http.post("/runs/wait", json={"assistant_id": "steps", "input": payload}).raise_for_status().json()

    def start(self, payload: dict[str, Any]) -> tuple[str, str]:
        """A background run on a new thread; both ids."""
        thread = self.http.post("/threads", json={}).raise_for_status().json()["thread_id"]
        run = self.http.post(f"/threads/{thread}/runs", json={"assistant_id": "steps", "input": payload})
        return thread, run.raise_for_status().json()["run_id"]

    def result(self, thread: str, run: str) -> Any:
        """The run's state when it is final."""
        self.http.get(f"/threads/{thread}/runs/{run}/join").raise_for_status()
        return self.http.get(f"/threads/{thread}/state").raise_for_status().json()["values"]


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something that nobody tells of."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def taken_port() -> Generator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]
