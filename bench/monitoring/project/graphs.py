"""An agent as a monitoring sees it: models and a tool that take their time, cost something, and fail now and then."""

import asyncio
import random
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph


class Model(BaseChatModel):
    """Answers after a while, or raises."""

    model: str
    max_tokens: int = 500
    temperature: float = 0
    pause_s: float = 0.05
    fails: float = 0.01

    @property
    def _llm_type(self) -> str:
        return "bench"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": self.max_tokens, "temperature": self.temperature}

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        if random.random() < self.fails:
            raise ConnectionError("nobody answers")
        given, said = random.randint(200, 2000), random.randint(20, 400)
        usage: Any = {"input_tokens": given, "output_tokens": said, "total_tokens": given + said}
        usage["input_token_details"] = {"cache_read": given // 2}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("an answer", usage_metadata=usage))])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        await asyncio.sleep(random.expovariate(1 / self.pause_s))
        return self._generate(messages)


SMALL, LARGE = Model(model="small"), Model(model="large", pause_s=0.2, fails=0.05)


@tool
async def lookup(what: str) -> str:
    """Look something up."""
    await asyncio.sleep(0.02)
    if random.random() < 0.05:
        raise LookupError("nothing there")
    return "found"


async def plan(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await SMALL.ainvoke(state["messages"])]}


async def act(state: MessagesState) -> dict[str, Any]:
    try:
        found = await lookup.ainvoke({"what": "it"})
    except LookupError:
        found = "nothing"
    return {"messages": [AIMessage(found)]}


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await LARGE.ainvoke(state["messages"])]}


builder: Any = StateGraph(MessagesState)
builder.add_node("plan", plan).add_node("act", act).add_node("answer", answer)
builder.add_edge(START, "plan").add_edge("plan", "act").add_edge("act", "answer").add_edge("answer", END)
agent = builder.compile()
