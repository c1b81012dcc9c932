"""A scripted model behind a cache, and models that wait, fail or say what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, TypedDict, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph
from pydantic import Field

from scripted_calls import ScriptedModel
from waystation_guards.budget.pricing import Prices, Rates
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheEvent, CacheRules
from waystation_guards.calls import PORTS_KEY
from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports
from waystation_guards.watching.watcher import Watcher

ANY = CacheRules(temperature="any")
PRICES = Prices({"scripted": Rates(cast("Any", 1), cast("Any", 2))})
COST = 3 * 1_000 + 4 * 2_000
"""What a scripted call costs by these prices, in nano-dollars."""

HOW = ("ainvoke", "astream", "invoke", "stream")


class State(TypedDict, total=False):
    said: str
    ask: str


class World:
    """A scripted model behind a cache, and the ports of one tenant."""

    def __init__(self, rules: CacheRules = ANY, *, model: BaseChatModel | None = None, **settings: Any) -> None:
        self.now = [1000.0]
        self.paid: BaseChatModel = model or ScriptedModel(calls=[])
        self.events: list[CacheEvent] = []
        self.answers = ResponseCache(rules, prices=PRICES, on_event=self.events.append, **settings)
        self.model = CachedModel(inner=self.paid, answers=self.answers)
        self.ports = replace(memory_ports(), cache=MemoryCache(clock=lambda: self.now[0]))
        use_ports(self.ports)  # for calls outside of a graph

    @property
    def calls(self) -> int:
        return len(cast("Any", self.paid).calls)

    @property
    def happened(self) -> list[str]:
        return [event.happened for event in self.events]

    def config(self, *, tenant: str = "acme", guards: Any = (), **configurable: Any) -> Any:
        ports = replace(self.ports, tenant=tenant)
        return {"configurable": {PORTS_KEY: ports, **configurable}, "callbacks": Watcher(list(guards)).handlers}

    async def ask(self, what: str = "hi", how: str = "ainvoke", **config: Any) -> str:
        return await say(self.model, how, self.config(**config), what)

    @property
    def entries(self) -> list[Any]:
        return [entry for _, _, entry in cast("MemoryLedger", self.ports.ledger).entries]


async def say(model: Any, how: str, config: Any, what: Any = "hi") -> str:
    """Ask from within a node, as agents do."""

    async def node(state: State) -> State:
        match how:
            case "ainvoke":
                return {"said": str((await model.ainvoke(what)).text)}
            case _:
                return {"said": "".join([str(chunk.text) async for chunk in model.astream(what)])}

    def blocking_node(state: State) -> State:
        if how == "invoke":
            return {"said": str(model.invoke(what).text)}
        return {"said": "".join(str(chunk.text) for chunk in model.stream(what))}

    builder: Any = StateGraph(State)
    builder.add_node("speaker", node if how.startswith("a") else blocking_node)
    graph = builder.add_edge(START, "speaker").add_edge("speaker", END).compile()
    return str((await graph.ainvoke({}, config))["said"])


class Gated(ScriptedModel):
    """Waits for the test before it answers, and tells that it was asked."""

    asked: Any = None
    go: Any = None

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: AsyncCallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        self.asked.set()
        await self.go.wait()
        return self._generate(messages)

    async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.asked.set()
        await self.go.wait()
        for chunk in self._stream(messages):
            yield chunk


def gated() -> Gated:
    return Gated(calls=[], asked=asyncio.Event(), go=asyncio.Event())


class Says(ScriptedModel):
    """Answers with given messages, the last one again and again."""

    answers: list[AIMessage] = Field(default_factory=list[AIMessage])

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.calls.append("whole")
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        return ChatResult(generations=[ChatGeneration(message=answer.model_copy())])


class Failing(ScriptedModel):
    """Fails as long as it has troubles. They are no setting of the model."""

    troubles: list[str] = Field(default_factory=list[str])

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        result = super()._generate(messages)
        if self.troubles:
            raise ValueError("no")
        return result
