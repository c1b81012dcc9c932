"""Processes that call a paid model under a budget, many times at once, and may kill themselves at the worst moment.

    python guard_spender.py '[{"uri": …, "thread": …, "run": …, "calls": 13, "limit_usd": 0.03, "bill": …}, …]'

Each says `<number> ready`, waits for the end of its input so that all begin together, and says what its calls came to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph

from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.calls import PORTS_KEY
from waystation_guards.errors import BudgetExceeded
from waystation_guards.ports import Ports
from waystation_guards.watching.watcher import watched

PRICES = Prices({"paid": Rates(Decimal(10), Decimal(30))}, "a test's")
INPUT_TOKENS = 12
LEAST, MOST = 20, 200
"""Tokens of an answer; `max_tokens` is the most."""

TYPICAL_NANO_USD = INPUT_TOKENS * 10_000 + (LEAST + MOST) // 2 * 30_000


@dataclass(frozen=True)
class Task:
    """What a spender is to do. `crash`: when it is killed at its call number `crash_at`."""

    uri: str
    thread: str
    run: str
    calls: int
    limit_usd: float
    bill: str
    seed: int = 0
    wait_s: float = 20.0
    crash: str = ""
    crash_at: int = 0


class PaidModel(BaseChatModel):
    """Answers after some milliseconds and writes a line on its provider's bill: the call's id and what it cost."""

    model: str = "paid"
    bill: str
    seed: int = 0
    crash: str = ""
    crash_at: int = 0
    made: int = 0

    @property
    def _llm_type(self) -> str:
        return "paid"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        assert run_manager is not None
        self.made += 1
        number = self.made
        dice = random.Random(f"{self.seed}/{number}")
        await asyncio.sleep(dice.uniform(0.005, 0.03))
        if self.crash == "before the provider" and number == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        output = dice.randint(LEAST, MOST)
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": output, "total_tokens": INPUT_TOKENS + output}
        write_bill(self.bill, str(run_manager.run_id), INPUT_TOKENS * 10_000 + output * 30_000)
        if self.crash == "after the provider" and number == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("words", usage_metadata=cast("Any", usage)))])


def write_bill(bill: str, call: str, nano_usd: int) -> None:
    """One line, whole, from however many processes."""
    file = os.open(bill, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{call} {nano_usd}\n".encode())
    finally:
        os.close(file)


async def spend(task: Task, ports: Ports) -> dict[str, int]:
    """Make all calls at once, each in a graph of its own; how many were made and refused."""
    model = PaidModel(bill=task.bill, seed=task.seed, crash=task.crash, crash_at=task.crash_at)
    budget = Budget(Limit(task.limit_usd, scope="tenant"), prices=PRICES, wait_s=task.wait_s)

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], max_tokens=MOST)]}

    builder: Any = StateGraph(MessagesState)
    graph = builder.add_node("speaker", node).add_edge(START, "speaker").add_edge("speaker", END).compile()
    ids = {"thread_id": task.thread, "run_id": task.run, PORTS_KEY: ports}
    config: Any = watched({"configurable": ids, "metadata": {"run_attempt": 1}}, [budget])

    async def call() -> str:
        try:
            await graph.ainvoke({"messages": [("user", "How much is the fish?")]}, config)
        except BudgetExceeded:
            return "refused"
        return "made"

    outcomes = await asyncio.gather(*(call() for _ in range(task.calls)))
    return {outcome: outcomes.count(outcome) for outcome in ("made", "refused")}


async def main(number: int, task: Task) -> None:
    async with Database(task.uri, name="spender", max_size=4) as db:
        stores = guard_stores(db, answer_s=20)
        await stores.desk.now()
        _say(f"{number} ready")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        outcome = await spend(task, stores.ports_for("default"))
        await stores.close()
    _say(f"{number} over {json.dumps(outcome)}")


def fork_all(tasks: list[Task]) -> None:
    """A process for each task; the modules are loaded once. Tells of each that was killed."""
    children: dict[int, int] = {}
    for number, task in enumerate(tasks):
        pid = os.fork()
        if pid == 0:
            asyncio.run(main(number, task))
            os._exit(0)
        children[pid] = number
    for _ in tasks:
        pid, status = os.wait()
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            _say(f"{children[pid]} killed")


def _say(line: str) -> None:
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # every refusal is told by LangChain
    fork_all([Task(**one) for one in json.loads(sys.argv[1])])
