"""The load generator, in a process of its own and the same for every server.

    python -m bench.load '{"port": 2024, "workloads": [...]}'      (see `workloads.Workload`)

For each workload it makes threads and warms up, prints `ready`, waits for a line, works, prints `done`, and then what
it saw as one line of JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from bench.connection import Answer, Connection

_POLL_S = 0.02


@dataclass
class Job:
    """A workload against a port; what was seen of it."""

    port: int
    workload: dict[str, Any]
    answers: list[Answer] = field(default_factory=list[Answer])
    runs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def body(self) -> bytes:
        modes = {"stream_mode": self.workload["stream_mode"]} if self.workload["kind"] == "stream" else {}
        return orjson.dumps({"assistant_id": self.workload["graph"], "input": self.workload["input"], **modes})


async def make_threads(port: int, count: int) -> list[str]:
    """New threads, made by a few connections."""
    made: list[str] = []

    async def some() -> None:
        connection = await Connection.open(port)
        while len(made) < count:
            made.append("")
            at = len(made) - 1
            made[at] = orjson.loads((await connection.post("/threads", b"{}")).body)["thread_id"]
        connection.close()

    await asyncio.gather(*(some() for _ in range(8)))
    return made


async def work(job: Job, threads: list[str], *, clients: int, seconds: float) -> None:
    """Run once on each thread, with so many clients at a time."""
    until = time.perf_counter() + seconds
    kind, body = job.workload["kind"], job.body
    mark = b"event: " + job.workload["mark"].encode()

    async def client(connection: Connection) -> None:
        while threads and time.perf_counter() < until:
            thread = threads.pop()
            match kind:
                case "wait":
                    answer = await connection.post(f"/threads/{thread}/runs/wait", body)
                case "stream":
                    answer = await connection.stream(f"/threads/{thread}/runs/stream", body, mark=mark)
                case _:
                    answer = await connection.post(f"/threads/{thread}/runs", body)
                    job.runs.append((thread, orjson.loads(answer.body)["run_id"]))
            if answer.status != 200 or b"__error__" in answer.body or b"event: error" in answer.body:
                raise RuntimeError(f"{answer.status}: {answer.body[-500:]!r}")
            job.answers.append(answer)

    connections = [await Connection.open(job.port) for _ in range(min(clients, len(threads)))]
    await asyncio.gather(*map(client, connections))
    for connection in connections:
        connection.close()


async def until_idle(port: int) -> None:
    """Wait until no thread is busy."""
    connection = await Connection.open(port)
    while orjson.loads((await connection.post("/threads/search", b'{"status":"busy","limit":1}')).body):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
    connection.close()


async def check_success(job: Job) -> None:
    """Every run of the background queue ended well."""
    connection = await Connection.open(job.port)
    for thread, run in job.runs:
        status = orjson.loads((await connection.get(f"/threads/{thread}/runs/{run}")).body)["status"]
        if status != "success":
            raise RuntimeError(f"a background run ended as {status}")
    connection.close()


async def measure(job: Job) -> dict[str, Any]:
    """The whole job; returns its figures."""
    background = job.workload["kind"] == "background"
    await work(job, await make_threads(job.port, job.workload["warmup"]), clients=8, seconds=10)
    if background:
        await until_idle(job.port)
    job.answers.clear()
    threads = await make_threads(job.port, job.workload["count"])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    await work(job, threads, clients=job.workload["clients"], seconds=job.workload["seconds"])
    accepted = time.perf_counter() - began
    if background:
        await until_idle(job.port)
    seconds = time.perf_counter() - began
    print("done", flush=True)
    if background:
        await check_success(job)
    return figures(job, seconds, accepted)


def figures(job: Job, seconds: float, accepted: float) -> dict[str, Any]:
    """What the answers say. `marks`: how many events of the wanted kind came."""
    mark = b"event: " + job.workload["mark"].encode()
    marks = sum(answer.body.count(mark) for answer in job.answers) if job.workload["mark"] else 0
    return {
        "seconds": seconds,
        "runs": len(job.answers),
        "marks": marks,
        "accepted_per_s": len(job.answers) / accepted,
        **spread([answer.total_s for answer in job.answers]),
        "first_event_ms": spread([a.first_event_s for a in job.answers])["p50_ms"],
        "first_mark_ms": spread([a.first_mark_s for a in job.answers])["p50_ms"],
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    return {
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3,
    }


def main() -> None:
    order = orjson.loads(sys.argv[1])
    for workload in order["workloads"]:
        result = uvloop.run(measure(Job(order["port"], workload)))
        print(orjson.dumps(result).decode(), flush=True)


if __name__ == "__main__":
    main()
