"""The graphs that are measured. They do next to nothing, so that what is measured is everything around them."""

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any, Required, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages


class Count(TypedDict, total=False):
    n: int
    log: Annotated[list[str], operator.add]


async def _step(state: Count) -> Count:
    n = state.get("n", 0)
    return {"n": n + 1, "log": [f"step {n}"]}


def _chain(length: int) -> Any:
    builder: Any = StateGraph(Count)
    names = [f"step_{i}" for i in range(length)]
    for name in names:
        builder.add_node(name, _step)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile()


def _single(state: Any, node: Any) -> Any:
    builder: Any = StateGraph(state)
    return builder.add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()


trivial = _chain(2)
ten_steps = _chain(10)


class Burst(TypedDict, total=False):
    events: int


async def _burst(state: Burst) -> Burst:
    write = get_stream_writer()
    for number in range(state.get("events", 500)):
        write({"number": number, "text": "as much as a token or a line of a log"})
        if number % 10 == 9:
            await asyncio.sleep(0)  # as a node that waits for something does
    return {}


burst = _single(Burst, _burst)


class ScriptedModel(BaseChatModel):
    """Says `count` tokens and pauses before each."""

    count: int = 200
    pause_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("token " * self.count))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(self.count):
            # Also without a pause: between two tokens of a real model others always get their turn.
            await asyncio.sleep(self.pause_s)
            last = "last" if number == self.count - 1 else None
            chunk = ChatGenerationChunk(message=AIMessageChunk(content="token ", chunk_position=last))
            if run_manager:
                await run_manager.on_llm_new_token("token ", chunk=chunk)
            yield chunk


class Chat(TypedDict, total=False):
    messages: Required[Annotated[list[AnyMessage], add_messages]]
    count: int
    pause_s: float


async def _answer(state: Chat) -> Chat:
    model = ScriptedModel(count=state.get("count", 200), pause_s=state.get("pause_s", 0.0))
    return {"messages": [await model.ainvoke(state["messages"])]}


tokens = _single(Chat, _answer)
