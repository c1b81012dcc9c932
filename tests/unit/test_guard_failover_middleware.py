"""Failover in agents, below other callbacks, and in every form of LangChain's event streams."""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

import pytest
from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]: its checkpointer's type
from langchain.agents.structured_output import ToolStrategy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel

from scripted_targets import Scripted, Status
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.calls import CallSite
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Backoff, Decision, FailoverPolicy
from waystation_guards.guarded.graph import guarded
from waystation_guards.memory.ports import memory_ports
from waystation_guards.middleware.failover import FailoverMiddleware
from waystation_guards.ports import Ports, use_ports

pytestmark = pytest.mark.anyio

ASKED: Any = {"messages": [("user", "hi")]}
ROWS: Any = {"connection": Decision(), "overload": Decision()}
USAGE: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
CUT = ConnectionResetError("cut")


@pytest.fixture(autouse=True)
def ports() -> Ports:
    made = memory_ports()
    use_ports(made)
    return made


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def scripted(*scripts: list[Any]) -> Scripted:
    return Scripted(model=f"m-{uuid4()}", scripts=list(scripts))


def policy(**members: Any) -> FailoverPolicy:
    given: dict[str, Any] = {"backoff": Backoff(first_s=0), "decisions": ROWS, **members}
    return FailoverPolicy(**given)


def call(name: str, arguments: str) -> AIMessageChunk:
    part: Any = {"name": name, "args": arguments, "id": "1", "index": 0}
    return AIMessageChunk(content="", tool_call_chunks=[part])


class TestMiddleware:
    @pytest.mark.parametrize("awaits", [True, False], ids=["async", "sync"])
    async def test_an_agents_model_comes_first_and_all_have_its_tools(self, awaits: bool) -> None:
        first = scripted([Status(503)])
        second = scripted([call("search", '{"query": "x"}')], ["done"])
        agent: Any = create_agent(first, [search], middleware=[FailoverMiddleware(second, policy=policy())])
        state = await agent.ainvoke(ASKED) if awaits else agent.invoke(ASKED)
        assert [one.text for one in state["messages"]] == ["hi", "", "found x", "done"]
        assert second.tools == [["search"], ["search"]]
        assert state["messages"][-1].response_metadata["failover"]["attempts"] == 2

    async def test_a_request_for_one_of_the_targets_begins_with_it_and_asks_it_once(self) -> None:
        first, second = scripted([Status(401)]), scripted(["fine"])
        middleware = FailoverMiddleware(first, second, policy=policy())
        agent: Any = create_agent(first, middleware=[middleware])
        assert (await agent.ainvoke(ASKED))["messages"][-1].text == "fine"
        assert len(first.asked) == 1

    async def test_the_agents_own_model_can_be_left_out(self) -> None:
        own, other = scripted(["own"]), scripted(["other"])
        agent: Any = create_agent(own, middleware=[FailoverMiddleware(other, model_first=False)])
        assert (await agent.ainvoke(ASKED))["messages"][-1].text == "other"
        with pytest.raises(ValueError, match="at least one target"):
            FailoverMiddleware(model_first=False)

    async def test_structured_answers_come_from_whoever_answers(self) -> None:
        class Weather(BaseModel):
            city: str

        second = scripted([call("Weather", '{"city": "Ulm"}')])
        agent: Any = create_agent(
            scripted([Status(401)]),
            middleware=[FailoverMiddleware(second, policy=policy())],
            response_format=ToolStrategy(Weather),
        )
        assert (await agent.ainvoke(ASKED))["structured_response"] == Weather(city="Ulm")

    async def test_a_guarded_agent_pays_for_each_try(self, ports: Ports) -> None:
        budget = Budget(Limit(100, "model_calls", "tenant"))
        first, second = scripted(["The ", CUT]), scripted(["sky."])
        agent: Any = create_agent(first, middleware=[FailoverMiddleware(second, policy=policy())])
        whole = guarded(agent, [budget])
        texts = [part[0].text async for part in whole.astream(ASKED, stream_mode="messages")]
        assert "".join(texts) == "The sky."
        (calls,) = await budget.standing(ports, CallSite())
        assert (calls.spent, calls.held) == (2, 0)

    async def test_a_guarded_failover_asks_its_guards_about_each_try(self, ports: Ports) -> None:
        budget = Budget(Limit(100, "model_calls", "tenant"))
        model = guarded(FailoverModel([scripted(["The ", CUT]), scripted(["sky."])], policy()), [budget])
        assert "".join([chunk.text async for chunk in model.astream("hi")]) == "The sky."
        (calls,) = await budget.standing(ports, CallSite())
        assert (calls.spent, calls.held) == (2, 0)


class TestEvents:
    async def test_one_model_streams_and_its_tries_do_not(self) -> None:
        model = FailoverModel([scripted(["The ", CUT]), scripted(["sky."])], policy())
        events: list[Any] = [one async for one in model.astream_events("why?", version="v2")]
        assert [one["event"] for one in events if one["event"] != "on_chat_model_stream"] == [
            "on_chat_model_start",
            "on_chat_model_end",
        ]
        assert (
            "".join(one["data"]["chunk"].text for one in events if one["event"] == "on_chat_model_stream") == "The sky."
        )

    @pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
    @pytest.mark.parametrize("on_break", ["continue", "restart"])
    async def test_protocol_events_of_a_graph_carry_the_answer(self, on_break: Any) -> None:
        model = FailoverModel([scripted(["The ", CUT]), scripted(["sky."])], policy(on_break=on_break))
        agent = cast("Any", create_agent(model))
        stream = await agent.astream_events(ASKED, version="v3")
        texts = [await message.text async for message in stream.messages]
        state = await stream.output()
        assert state["messages"][-1].text == texts[-1] == ("The sky." if on_break == "continue" else "sky.")

    async def test_usage_is_counted_once(self) -> None:
        counter = UsageMetadataCallbackHandler()
        chunk = AIMessageChunk(content="x", usage_metadata=USAGE, response_metadata={"model_name": "m"})
        model = FailoverModel([scripted([Status(503)]), scripted([chunk])], policy())
        await model.ainvoke("hi", {"callbacks": [counter]})
        assert counter.usage_metadata == {"m": USAGE}
