"""Breaks a small installation in the ways that `docs/operations/runbooks/` are about, and prints what operators see.

    python -m bench.drills                        all, about six minutes
    python -m bench.drills postgres stuck-queue   some of them

Each drill has Postgres, Valkey, providers, an API process and workers of its own on this machine; times count from the
fault. Nothing outside of the drill's folder is touched.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import psycopg

from bench.drill_world import Installation, installation

_HI = [{"role": "user", "content": "hello there, how are you"}]
_RUNS = r"^waystation_(runs_swept|leases_lost|lease_renewal|fenced|queue_(pending|running|oldest)|worker_)"


def single_pod() -> None:
    """kill -9 of one of two workers with runs in it."""
    with installation() as here:
        api, one, other = here.api(), here.worker("worker-1"), here.worker("worker-2")
        runs = [here.begin(api, steps=16) for _ in range(8)]
        here.until(lambda: here.statuses(api, runs) == {"running": 8}, "all run")
        here.mark("kill -9 of worker-1")
        one.kill()
        here.say(f"worker-1 /ready  {here.ready(one)[0] or 'no answer'}")
        here.until(lambda: bool(here.metrics(other, "runs_swept") or here.metrics(api, "runs_swept")), "swept")
        here.say("its runs are put back")
        for child in (other, api):
            here.show_metrics(child, r"runs_swept")
        here.until(lambda: here.statuses(api, runs).get("pending", 0) == 0, "none waits")
        here.say("and go on in worker-2")
        here.until_all(api, runs)
        here.show_log(other, "lease|swept|put back|crash")


def worker_fleet() -> None:
    """All workers die; the API goes on accepting; new workers take up what was left."""
    with installation() as here:
        api, workers = here.api(), [here.worker(f"worker-{n}") for n in (1, 2)]
        runs = [here.begin(api, steps=10) for _ in range(10)]
        here.until(lambda: here.statuses(api, runs).get("running", 0) == 10, "all run")
        here.mark("kill -9 of all workers")
        for worker in workers:
            worker.kill()
        runs += [here.begin(api, steps=2) for _ in range(20)]
        here.say(f"the API accepts: 20 runs more; /ready {here.ready(api)[0]}")
        _pause(here, 12)
        here.say(f"statuses {here.statuses(api, runs)}: nobody sweeps either")
        _who_runs(here)
        here.show_metrics(api, r"^waystation_(queue|worker)")
        new = here.worker("worker-3", jobs=20)
        here.say("a new worker is ready")
        here.until_all(api, runs)
        here.show_metrics(new, r"run_wait_seconds_(sum|count)|runs_finished")


def postgres() -> None:
    """Postgres crashes (`-m immediate`) and is away for half a minute."""
    with installation() as here:
        api, worker = here.api(), here.worker("worker")
        runs = [here.begin(api, steps=40) for _ in range(3)]
        here.until(lambda: here.statuses(api, runs) == {"running": 3}, "all run")
        here.mark("Postgres is gone")
        here.postgres.halt(immediate=True)
        here.say(f"api /ready     {here.ready(api)}")
        here.say(f"worker /ready  {here.ready(worker)}")
        with here.http(api) as client:
            here.say(f"/health        {client.get('/health').status_code}")
            answer = client.post("/threads", json={})
            here.say(
                f"POST /threads  {answer.status_code} Retry-After {answer.headers.get('retry-after')} {answer.text}"
            )
        here.command("doctor", show="Postgres")
        _pause(here, 12)
        here.show_log(worker, "ease|ostgres")
        here.mark("Postgres is back")
        here.postgres.revive()
        here.until(lambda: here.ready(api)[0] == 200, "ready")
        here.say(f"api /ready     {here.ready(api)}")
        here.wait(api, "steps", steps=1)
        here.say("a new run has succeeded")
        here.until_all(api, runs)
        here.show_metrics(worker, r"lease_ren|leases_lost|runs_swept|fenced")


def redis() -> None:
    """Valkey dies and comes back empty, while a run streams."""
    with installation() as here:
        api, worker = here.api(), here.worker("worker")
        runs = [here.begin(api, steps=30) for _ in range(3)]
        status, _, before = here.wait(api, "steps", steps=1)
        assert here.redis is not None
        here.mark(f"kill -9 of Valkey (before: a run of one step of 0.5 s took {before:.2f} s)")
        here.redis.kill()
        here.redis.wait()
        here.say(f"api /ready  {here.ready(api)}")
        status, _, took = here.wait(api, "steps", steps=1)
        here.say(f"a run of one step: {status} in {took:.2f} s")
        here.command("doctor", show="Redis")
        here.show_log(api, "edis")
        here.show_log(worker, "edis")
        here.start_redis()
        here.mark("Valkey is back, empty")
        here.until(lambda: not here.ready(api)[1].get("degraded"), "not degraded")
        here.say(f"api /ready  {here.ready(api)}")
        status, _, took = here.wait(api, "steps", steps=1)
        here.say(f"a run of one step: {status} in {took:.2f} s")
        here.until_all(api, runs)


def region() -> None:
    """The primary's Postgres and all processes are gone; the standby is promoted and processes start on it."""
    with installation() as here:
        api, worker = here.api(), here.worker("worker")
        replica = here.standby()
        try:
            runs = [here.begin(api, steps=20) for _ in range(4)]
            here.until(lambda: here.statuses(api, runs) == {"running": 4}, "all run")
            with psycopg.connect(here.postgres.conninfo) as conn:
                lag = conn.execute("select application_name, state, replay_lag from pg_stat_replication").fetchall()
            here.say(f"pg_stat_replication  {lag}")
            time.sleep(2)
            here.mark("the region is gone: Postgres, API, worker, Valkey")
            for child in (api, worker):
                child.kill()
            here.postgres.halt(immediate=True)
            assert here.redis is not None
            here.redis.kill()
            with psycopg.connect(replica.conninfo, autocommit=True) as conn:
                conn.execute("select pg_promote()")
                here.say("the standby is promoted")
            here.environ["DATABASE_URI"] = replica.conninfo
            here.start_redis()
            here.command("migrate", "--plan")
            api, worker = here.api(), here.worker("worker-there")
            here.say(f"API and worker are ready on it: {here.ready(api)}")
            here.until_all(api, runs)
        finally:
            replica.stop()


def provider_outage() -> None:
    """One of two providers fails, then both; the policy has a failover."""
    south = {"model": "openai:mini", "base_url": "PROVIDER/t/south/v1", "name": "south"}
    guards: dict[str, Any] = {"failover": [{"models": {"mini": [south]}}], "levels": {"rules": []}}
    with installation(guards) as here:
        api, worker = here.api(), here.worker("worker")

        def ask(times: int) -> None:
            outcomes = [here.wait(api, "ask", messages=_HI) for _ in range(times)]
            failed = [body["__error__"] for _, body, _ in outcomes if "__error__" in body]
            slowest = max(took for *_, took in outcomes)
            codes = sorted({str(one.get("code")) for one in failed})
            here.say(f"{times} runs: {times - len(failed)} succeeded, slowest {slowest:.2f} s {', '.join(codes)}")

        ask(5)
        here.mark("north answers 503 to everything")
        here.provider("north", "unavailable")
        ask(15)
        here.show_metrics(worker, r"breaker|model_calls")
        here.say(f"api /ready  {here.ready(api)}")
        here.show_log(worker, "reaker|ailover")
        here.mark("south fails too")
        here.provider("south", "server_error")
        ask(15)
        here.say(f"api /ready  {here.ready(api)}")
        here.show_metrics(worker, r"breaker|runs_finished")
        here.command("level", "maintenance", "--for", "30m", "--reason", "providers are down")
        time.sleep(2)
        ask(2)
        here.command("level", "auto")
        for name in ("north", "south"):
            here.provider(name, "ok")
        here.mark("both are back")
        here.until(lambda: "__error__" not in here.wait(api, "ask", messages=_HI)[1], "a run succeeds")
        here.say("a run has succeeded")

        def is_over() -> bool:
            here.wait(api, "ask", messages=_HI)
            return not here.metrics(api, r"breaker_open\{")

        here.until(is_over, "no breaker is open")
        here.say(f"no breaker is open; api /ready  {here.ready(api)}")


def cost_spike() -> None:
    """One graph spends a day's budget; the kill switch stops it."""
    guards = {"budgets": [{"size": 0.02, "scope": "tenant", "window": "day"}], "prices": "prices.json"}
    with installation(guards) as here:
        api, worker = here.api(), here.worker("worker")
        here.mark("a client asks in a loop")
        for asked in range(1, 40):
            _, body, _ = here.wait(api, "ask", messages=_HI)
            if "__error__" in body:
                here.say(f"run {asked} is refused: {body['__error__']}")
                break
        here.show_metrics(worker, r"spent|refusals|guard_alerts")
        here.show_metrics(api, r"budget_(spent|held|used)")
        here.command("budget")
        here.command("ledger", "export", "-o", "ledger.jsonl")
        here.say(f"its first line  {(here.folder / 'ledger.jsonl').read_text().splitlines()[0][:400]}")
        here.command("kill", "--graph", "ask", "--reason", "it asks in a loop", "--for", "1h")
        time.sleep(2)
        with here.http(api) as client:
            answer = client.post("/runs/wait", json={"assistant_id": "ask", "input": {"messages": _HI}})
            here.say(f"a new run of `ask`: {answer.status_code} {answer.text[:160]}")
        status, _, _ = here.wait(api, "steps", steps=1)
        here.say(f"a run of another graph: {status}")
        here.command("doctor", show="kill|budget|guards")
        here.command("kill", "--list")


def stuck_queue() -> None:
    """No worker, then one whose slots are all taken by runs that never end; a full queue refuses."""
    with installation() as here:
        api = here.api(WAYSTATION_MAX_QUEUE="25")
        here.mark("no worker runs")
        runs: list[tuple[str, str]] = []
        try:
            while True:
                runs.append(here.begin(api, steps=1))
        except httpx.HTTPStatusError as error:
            answer = error.response
            here.say(
                f"run {len(runs) + 1} is refused: {answer.status_code} Retry-After {answer.headers.get('retry-after')}"
            )
            here.say(f"    {answer.text}")
        _pause(here, 5)
        here.show_metrics(api, r"^waystation_queue")
        here.say(f"api /ready  {here.ready(api)[0]} (a queue makes nobody unready)")
        _who_runs(here)
        here.mark("a worker starts")
        worker = here.worker("worker", jobs=5)
        here.say("it is ready")
        here.until_all(api, runs)
        long = [here.begin(api, steps=10_000) for _ in range(5)]
        here.until(lambda: here.statuses(api, long) == {"running": 5}, "all run")
        behind = here.begin(api, steps=1)
        here.mark("5 slots are taken by runs that do not end; one run waits behind them")
        _pause(here, 3)
        here.show_metrics(worker, r"^waystation_(queue|worker)")
        _who_runs(here)
        with here.http(api) as client:
            for thread, run in long:
                client.post(f"/threads/{thread}/runs/{run}/cancel").raise_for_status()
        here.say("they are cancelled")
        here.until_all(api, [behind])


def bad_deploy() -> None:
    """A release whose graph cannot be imported, beside the old one; then one that loads, and fails."""
    with installation() as here:
        api, old = here.api(), here.worker("worker-old")
        good = (here.folder / "graphs.py").read_text()
        (here.folder / "graphs.py").write_text("import nothing_of_that_name\n")
        here.mark("the new release cannot be imported")
        new = here.worker("worker-new", wait=False)
        code = new.process.wait(60)
        here.say(f"worker-new ended with {code}; its last line:")
        here.say(f"    {new.log.read_text().splitlines()[-1][:200]}")
        here.command("doctor", show="fail|mended")
        here.say(f"a run on the old worker: {here.wait(api, 'steps', steps=1)[0]}; /ready {here.ready(old)[0]}")
        (here.folder / "graphs.py").write_text(good.replace("await asyncio.sleep(0.5)", 'raise KeyError("steps")'))
        old.kill()
        broken = here.worker("worker-broken")
        here.mark("the next release loads, and its graph raises")
        runs = [here.begin(api, steps=1) for _ in range(6)]
        here.until_all(api, runs, "error")
        here.show_metrics(broken, r"runs_finished|agent_requests")
        here.show_log(broken, "KeyError|failed|rror", most=2)
        (here.folder / "graphs.py").write_text(good)
        broken.kill()
        here.worker("worker-back")
        here.mark("rolled back")
        here.say(f"a run: {here.wait(api, 'steps', steps=1)[0]}")


def _who_runs(here: Installation) -> None:
    """The question to Postgres that the runbook has."""
    question = """
        select status, coalesce(claimed_by, '-'), count(*), date_trunc('second', now() - min(created_at))
        from run where status in ('pending', 'running') group by 1, 2 order by 1, 2"""
    with psycopg.connect(here.postgres.conninfo) as conn:
        for row in conn.execute(question).fetchall():
            here.say(f"Postgres  {row[0]} {row[1]} {row[2]} runs, the oldest {row[3]}")


def _pause(here: Installation, seconds: float) -> None:
    """The fault lasts."""
    here.say(f"… {seconds:.0f} s")
    time.sleep(seconds)


DRILLS: dict[str, Callable[[], None]] = {
    "single-pod": single_pod,
    "worker-fleet": worker_fleet,
    "postgres": postgres,
    "redis": redis,
    "region": region,
    "provider-outage": provider_outage,
    "cost-spike": cost_spike,
    "stuck-queue": stuck_queue,
    "bad-deploy": bad_deploy,
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.drills", description=__doc__)
    parser.add_argument("drill", nargs="*", choices=[*DRILLS, []], help="which; all by default")
    failed = 0
    for name in parser.parse_args(arguments).drill or list(DRILLS):
        drill = DRILLS[name]
        load = os.getloadavg()[0]
        sys.stdout.write(f"{name}: {drill.__doc__} (load {load:.1f})\n")
        try:
            drill()
        except Exception as error:  # the next drill has an installation of its own
            failed += 1
            sys.stdout.write(f"  FAILED: {type(error).__name__}: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
