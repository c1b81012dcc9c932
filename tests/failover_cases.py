"""One fault, one way to deal with it, one client that reads a graph's stream: what it saw, and what it was charged.

Target `a` fails, for ever or once; target `b` is well. The answer has twelve words, each a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, cast

from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]: its checkpointer's type
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

from providers import FaultServer, Plan
from waystation_guards.failover.hedging import Hedge
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Backoff, FailoverPolicy, OnBreak, Patience
from waystation_guards.failover.stream import CONTINUE
from waystation_guards.failover.targets import Target
from waystation_guards.providers.models import chat_model

ANSWER: Final = "one two three four five six seven eight nine ten eleven twelve"
SHOWN_BEFORE: Final = 5
_SILENCE_S: Final = 0.4

FAULTS: Final = (
    "rate_limit",
    "quota",
    "request_timeout",
    "server_error",
    "bad_gateway",
    "unavailable",
    "gateway_timeout",
    "overloaded",
    "context",
    "content_policy",
    "bad_request",
    "auth",
    "permission",
    "not_found",
    "reset",
    "hang",
    "cut",
    "reset_mid_stream",
    "hang_mid_stream",
    "malformed",
    "error_event",
    "no_end",
    "no_finish",
    "empty",
    "wrong_type",
    "truncated_tool",
)


@dataclass(frozen=True)
class Seen:
    """What came of it. Tokens are words of the answer.

    `repeated`: tokens that the client shows twice in the end, since nothing told it to take them back.
    `wrong`: the run succeeded with another text than the answer, or with half a tool call.
    """

    survived: bool
    error: str
    text: str
    shown: int
    retracted: int
    repeated: int
    first_s: float
    whole_s: float
    paid_twice: int
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def wrong(self) -> bool:
        return not self.error and not self.survived


Make = Callable[[FaultServer], Any]


def _chat(server: FaultServer, target: str, **params: Any) -> ChatOpenAI:
    given: dict[str, Any] = {"max_retries": 0, "timeout": _SILENCE_S, "stream_usage": True, **params}
    return ChatOpenAI(model=target, api_key=cast("Any", "key"), base_url=server.urls(target).openai, **given)


def failover(on_break: OnBreak = "continue", *, hedge: Hedge | None = None) -> Make:
    """Ours, as the model of an agent."""

    def make(server: FaultServer) -> Any:
        policy = FailoverPolicy(
            on_break=on_break,
            hedge=hedge,
            backoff=Backoff(first_s=0.02),
            patience=Patience(_SILENCE_S, _SILENCE_S, 2),
            breaker=None,
        )
        targets = [
            Target(chat_model({"model": f"openai:{name}", "base_url": server.urls(name).openai}), name=name)
            for name in "ab"
        ]
        return cast("Any", create_agent(FailoverModel(targets, policy)))

    return make


def fallback_middleware(server: FaultServer) -> Any:
    return create_agent(_chat(server, "a"), middleware=[ModelFallbackMiddleware(_chat(server, "b"))])


def retry_middleware(server: FaultServer) -> Any:
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.02, on_failure="error")
    return create_agent(_chat(server, "a"), middleware=[retry])


def both_middlewares(server: FaultServer) -> Any:
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.02, on_failure="error")
    return create_agent(_chat(server, "a"), middleware=[ModelFallbackMiddleware(_chat(server, "b")), retry])


def with_fallbacks(server: FaultServer) -> Any:
    model = _chat(server, "a", max_retries=2).with_fallbacks([_chat(server, "b", max_retries=2)])

    async def answer(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder: Any = StateGraph(MessagesState)
    return builder.add_node("model", answer).add_edge(START, "model").add_edge("model", END).compile()


WAYS: Final[Mapping[str, Make]] = {
    "failover, continue": failover("continue"),
    "failover, restart": failover("restart"),
    "failover, fail": failover("fail"),
    "ModelFallbackMiddleware": fallback_middleware,
    "ModelRetryMiddleware": retry_middleware,
    "fallback and retry": both_middlewares,
    "with_fallbacks": with_fallbacks,
}


def obedient(body: Mapping[str, Any]) -> str:
    """The answer; where a part of it is given, the rest."""
    messages = cast("list[dict[str, Any]]", body.get("messages") or [])
    if messages and messages[-1].get("content") == CONTINUE:
        return ANSWER[len(str(messages[-2].get("content") or "")) :].strip()
    return ANSWER


def fault(name: str) -> Plan:
    return Plan(name, after=SHOWN_BEFORE, retry_after_s=0.05)


async def play(server: FaultServer, make: Make, name: str, *, lasting: bool, pause_s: float = 0.0) -> Seen:
    """One run of a graph under a fault of its first target, which lasts or passes."""
    server.reset()
    first, second = server.target("a"), server.target("b")
    well = Plan(pause_s=pause_s)
    first.always(fault(name) if lasting else well)
    second.always(well)
    if not lasting:
        first.script(fault(name))
    graph = make(server)
    return await _read(graph, server)


async def _read(graph: Any, server: FaultServer) -> Seen:
    began, first_s = perf_counter(), 0.0
    texts: dict[str, str] = {}
    retracted: dict[str, str] = {}
    final: Any = None
    error = ""
    try:
        async with asyncio.timeout(20):
            async for mode, part in graph.astream(
                {"messages": [("user", "count")]}, stream_mode=["messages", "values"]
            ):
                if mode == "values":
                    final = part["messages"][-1]
                    continue
                chunk = part[0]
                texts[chunk.id] = texts.get(chunk.id, "") + chunk.text
                if chunk.text and not first_s:
                    first_s = perf_counter() - began
                if "failover_retracted" in chunk.response_metadata:
                    retracted[chunk.id] = texts.pop(chunk.id)
    except Exception as failed:
        error = type(failed).__name__
    whole_s = perf_counter() - began
    answer = "" if error or final is None else str(final.text)
    guessed = bool(getattr(final, "tool_calls", None))  # half a tool call, which LangChain completes by guessing
    survived = not error and answer.split() == ANSWER.split() and not guessed
    kept = sum(len(text.split()) for text in texts.values())
    server.settled()
    return Seen(
        survived=survived,
        error=error,
        text=answer,
        shown=kept,
        retracted=sum(len(text.split()) for text in retracted.values()),
        repeated=max(0, kept - len(answer.split())) if not error else 0,
        first_s=first_s,
        whole_s=whole_s,
        paid_twice=max(0, server.bill.output_tokens - len(ANSWER.split())) if survived else 0,
        told=final.response_metadata.get("failover", {}) if survived and final is not None else {},
    )
