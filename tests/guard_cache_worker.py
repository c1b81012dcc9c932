"""A process that asks a model the same question many times at once, through the cache that all such processes share.

Reads tasks from its input, one line of JSON each, and prints what came of them. A task's `uri` is Postgres, `redis`
(may be empty) Redis, `base_url` the provider, `callers` how many ask at a time, `question` what they ask, `how`
(`ainvoke` or `astream`), `tenant`, `lock_s` and `wait_s` as in `CacheRules`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import uvloop
from langchain_openai import ChatOpenAI

from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.calls import PORTS_KEY


async def ask(task: dict[str, Any]) -> dict[str, Any]:
    """Ask as often as the task says; the answers and what the cache did."""
    events: list[str] = []
    rules = CacheRules(lock_s=task.get("lock_s", 20.0), wait_s=task.get("wait_s", 30.0), store_s=30.0)
    answers = ResponseCache(rules, on_event=lambda event: events.append(event.happened))
    key: Any = "k"
    inner = ChatOpenAI(model="m", temperature=0, api_key=key, base_url=task["base_url"], max_retries=0)
    model = CachedModel(inner=inner, answers=answers)
    async with Database(task["uri"], max_size=8, name="caches") as db:
        stores = guard_stores(db, task["redis"] or None, answer_s=20)
        try:
            config: Any = {"configurable": {PORTS_KEY: stores.ports_for(task.get("tenant", "default"))}}
            said = await asyncio.gather(*(_one(model, task, config) for _ in range(task["callers"])))
        finally:
            await stores.close()
    return {"said": said, "events": events}


async def _one(model: CachedModel, task: dict[str, Any], config: Any) -> str:
    if task.get("how") == "astream":
        return "".join([str(chunk.text) async for chunk in model.astream(task["question"], config)])
    return str((await model.ainvoke(task["question"], config)).text)


class Askers:
    """Some such processes, as long as the block lasts."""

    def __init__(self, processes: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(processes)
        ]

    def __enter__(self) -> Self:
        for number in range(len(self.processes)):
            self.hear(number)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.processes:
            one.kill()
            with suppress(BrokenPipeError):
                one.communicate()

    def tell(self, number: int, task: dict[str, Any]) -> None:
        """Give a process a task."""
        told = self.processes[number].stdin
        assert told is not None
        told.write(json.dumps(task) + "\n")
        told.flush()

    def hear(self, number: int) -> Any:
        """What came of it."""
        said = self.processes[number].stdout
        assert said is not None
        return json.loads(said.readline())

    def all(self, task: dict[str, Any]) -> list[Any]:
        """What came of the same task in all of them."""
        for number in range(len(self.processes)):
            self.tell(number, task)
        return [self.hear(number) for number in range(len(self.processes))]


def main() -> None:
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(uvloop.run(ask(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
