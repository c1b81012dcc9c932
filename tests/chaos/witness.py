"""What happened, seen from outside: from triggers in the database and from the file that the nodes append to.

`check` holds for every fault: every run final and once, every thread free, no write of a stale attempt, no committed
step executed again. It returns what was counted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection

FINAL = {"success", "error", "timeout", "interrupted"}
_SQL = Path(__file__).with_name("witness.sql")


@dataclass(frozen=True, slots=True)
class Execution:
    """One line of the executions file."""

    run_id: str
    step: str
    attempt: int
    at: float
    what: str


@dataclass(slots=True)
class Counted:
    """What a test may report."""

    runs: int = 0
    attempts: int = 0
    crashes: int = 0
    repeated_steps: int = 0
    statuses: Counter[str] = field(default_factory=Counter[str])


class Witness:
    """Looks at one database and one executions file."""

    def __init__(self, database_uri: str, executions: Path) -> None:
        self._uri = database_uri
        self._executions = executions

    async def install(self) -> Witness:
        async with await AsyncConnection.connect(self._uri, autocommit=True) as conn:
            await conn.execute(_SQL.read_bytes())
        return self

    async def ask(self, statement: LiteralString, *arguments: Any) -> list[tuple[Any, ...]]:
        """Rows of a query; waits while Postgres is away."""
        deadline = time.monotonic() + 60
        while True:
            try:
                async with await AsyncConnection.connect(self._uri, autocommit=True) as conn:
                    return await (await conn.execute(statement, arguments)).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    def executions(self) -> list[Execution]:
        return [_execution(line) for line in self._executions.read_text().splitlines()]

    def starts(self, run_id: str) -> list[Execution]:
        """What of a run was begun, in the order in which it was."""
        return [e for e in self.executions() if e.run_id == run_id and e.what == "start"]

    async def until_started(self, count: int, *, within_s: float = 60) -> None:
        """Wait until so many node executions have begun in all."""
        deadline = time.monotonic() + within_s
        while sum(e.what == "start" for e in self.executions()) < count:
            assert time.monotonic() < deadline, f"fewer than {count} executions began in {within_s} s"
            await asyncio.sleep(0.02)

    async def until_claimed_by(self, pids: Collection[int], *, within_s: float = 60) -> None:
        """Wait until each of these processes has claimed a run."""
        deadline = time.monotonic() + within_s
        while True:
            rows = await self.ask("select distinct claimed_by from witness_status where became = 'running'")
            if set(pids) <= {int(row[0].split(":")[1]) for row in rows}:
                return
            assert time.monotonic() < deadline, f"the workers {pids} have not all claimed runs in {within_s} s"
            await asyncio.sleep(0.05)

    async def held_by(self, pid: int) -> list[tuple[str, int]]:
        """(run, attempt) that a process is executing."""
        rows = await self.ask(
            "select run_id::text, attempt from run where status = 'running' and split_part(claimed_by, ':', 2) = %s",
            str(pid),
        )
        return [(run, attempt) for run, attempt in rows]

    async def until_taken_over(self, held: Sequence[tuple[str, int]], *, within_s: float) -> None:
        """Wait until each of these attempts has a successor."""
        deadline = time.monotonic() + within_s
        while True:
            rows = await self.ask(
                "select run_id::text, attempt from run where run_id = any(%s::uuid[])", [run for run, _ in held]
            )
            attempts = dict(rows)
            if all(attempts[run] > attempt for run, attempt in held):
                return
            assert time.monotonic() < deadline, f"nobody took over in {within_s} s"
            await asyncio.sleep(0.05)

    async def until_final(self, run_ids: Collection[str], *, within_s: float) -> float:
        """Wait until these runs are final; how long it took, in seconds. A run that vanishes is a lost run."""
        began = time.monotonic()
        while True:
            rows = await self.ask("select run_id::text, status from run where run_id = any(%s::uuid[])", list(run_ids))
            statuses = dict(rows)
            assert len(statuses) == len(run_ids), f"lost: {set(run_ids) - set(statuses)}"
            if set(statuses.values()) <= FINAL:
                return time.monotonic() - began
            open_runs = {run: status for run, status in rows if status not in FINAL}
            assert time.monotonic() < began + within_s, f"not final after {within_s} s: {open_runs}"
            await asyncio.sleep(0.05)

    async def until_ended(self, run_ids: Collection[str], *, within_s: float) -> dict[str, str]:
        """Wait until these runs are final or deleted; what became of each."""
        deadline = time.monotonic() + within_s
        while True:
            rows = await self.ask(
                "select run_id::text, became from witness_status where became not in ('pending', 'running') order by id"
            )
            ended = dict(rows)
            if left := set(run_ids) - set(ended):
                assert time.monotonic() < deadline, f"not ended after {within_s} s: {left}"
                await asyncio.sleep(0.05)
                continue
            return {run: ended[run] for run in run_ids}

    async def check(self, run_ids: Collection[str], *, status: str | None = "success") -> Counted:
        """Everything that no fault may break; `status` is how all of the runs must have ended."""
        counted = Counted(runs=len(run_ids))
        rows = await self.ask(
            "select run_id::text, status, attempt, crashes, error from run where run_id = any(%s::uuid[])",
            list(run_ids),
        )
        assert len(rows) == len(run_ids)
        for _run, became, attempt, crashes, error in rows:
            counted.statuses[became] += 1
            counted.attempts += attempt
            counted.crashes += crashes
            assert status is None or became == status, f"{became}: {error}"
        await self.check_statuses()
        await self.check_fence()
        counted.repeated_steps = await self.check_committed_steps()
        return counted

    async def check_statuses(self) -> None:
        """Each run became final once and stayed so, one at a time ran per thread, and no thread is left busy."""
        rows = await self.ask(
            "select thread_id::text, run_id::text, was, became, attempt from witness_status order by id"
        )
        ended: dict[str, str] = {}
        running: dict[str, str] = {}
        attempts: dict[str, int] = defaultdict(int)
        for thread, run, was, became, attempt in rows:
            assert ended.get(run) != "deleted", f"run {run} was deleted and became {became}"
            assert run not in ended or became == "deleted", f"run {run} was {ended[run]} and became {became}"
            assert attempt >= attempts[run], f"the attempt of {run} went back"
            attempts[run] = attempt
            if became == "running" and was != "running":
                assert thread not in running, f"{run} began while {running[thread]} was running on its thread"
                running[thread] = run
            elif running.get(thread) == run and became != "running":
                del running[thread]
            if became in FINAL or became == "deleted":
                ended[run] = became
        busy = await self.ask(
            "select thread_id::text, status, active_runs from thread t where (status = 'busy' or active_runs > 0)"
            " and not exists (select from run r where r.thread_id = t.thread_id and r.status in ('pending', 'running'))"
        )
        assert not busy, f"threads left busy: {busy}"

    async def check_nothing_begins_after_the_end(self) -> None:
        """No step of a run began when it was final or deleted already."""
        rows = await self.ask(
            "select run_id::text, min(extract(epoch from at))::float8 from witness_status"
            " where became not in ('pending', 'running') group by run_id"
        )
        ended = dict(rows)
        late = [e for e in self.executions() if e.what == "start" and e.at > ended.get(e.run_id, e.at)]
        assert not late, f"begun after the end: {late}"

    async def check_fence(self) -> None:
        """No checkpoint and no event was written by an attempt that was not the current one."""
        stale = await self.ask(
            "select kind, run_id::text, attempt, step, current_attempt, current_status from witness_write"
            " where run_id is not null and attempt is not null"
            " and (attempt is distinct from current_attempt or current_status is distinct from 'running')"
        )
        assert not stale, f"written behind the fence: {stale}"

    async def check_committed_steps(self) -> int:
        """No step was begun again by a later attempt than the one that committed it; how many were begun twice."""
        rows = await self.ask(
            "select run_id::text, step, min(attempt) from witness_write where kind = 'checkpoint' and step >= 1"
            " group by run_id, step"
        )
        committed: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for run, step, attempt in rows:
            committed[run].append((step, attempt))
        begun: Counter[tuple[str, str]] = Counter()
        for e in self.executions():
            if e.what != "start" or not e.step.isdecimal():
                continue
            begun[e.run_id, e.step] += 1
            again = [c for c in committed[e.run_id] if c[0] >= int(e.step) and c[1] < e.attempt]
            assert not again, f"step {e.step} of {e.run_id} was committed by attempt {again} and begun by {e.attempt}"
        repeats = [key for key, count in begun.items() if count > 1]
        return sum(begun[key] - 1 for key in repeats)

    async def outputs(self, run_ids: Sequence[str]) -> list[Any]:
        """The values of the threads of these runs."""
        rows = await self.ask(
            'select r.run_id::text, t."values" from run r join thread t using (tenant_id, thread_id)'
            " where r.run_id = any(%s::uuid[])",
            list(run_ids),
        )
        found = dict(rows)
        return [found[run] for run in run_ids]


def say(text: str) -> None:
    """Tell what was counted; pytest shows it with -s, and when a test fails."""
    sys.stdout.write(text + "\n")


def _execution(line: str) -> Execution:
    run, step, attempt, at, what = line.split(" ", 4)
    return Execution(run, step, int(attempt), float(at), what)
