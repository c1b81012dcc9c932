"""The agent calls tools, uses what they return, and survives tools that refuse."""

# pyright: reportUnknownMemberType=false
# LangGraph's graph methods are generic in parameters that it leaves open.

from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph.state import CompiledStateGraph

from agent import build_graph
from offline_model import OfflineChatModel
from offline_rules import NOTICE

pytestmark = pytest.mark.anyio
GRAPHS = Path(__file__).resolve().parents[2] / "graphs"


async def ask(text: str) -> Sequence[AnyMessage]:
    state = await build_graph(OfflineChatModel()).ainvoke({"messages": [HumanMessage(text)]})
    return state["messages"]


async def test_a_question_goes_through_the_tool_loop() -> None:
    question, call, result, answer = await ask("What is 17 * 23?")

    assert question.type == "human"
    assert isinstance(call, AIMessage)
    assert call.tool_calls[0]["args"] == {"expression": "17 * 23"}
    assert isinstance(result, ToolMessage)
    assert result.content == "17 * 23 = 391"
    assert str(answer.text).startswith(NOTICE)
    assert "391" in answer.text


async def test_two_tools_are_called_in_one_turn() -> None:
    messages = await ask("What is 6*7, and what time is it in Tokyo?")

    assert [message.name for message in messages if isinstance(message, ToolMessage)] == ["calculator", "clock"]
    assert "6*7 = 42" in messages[-1].text
    assert "Asia/Tokyo" in messages[-1].text


async def test_a_question_about_waystation_is_answered_from_its_docs() -> None:
    messages = await ask("How does Waystation make sure that a committed step is not executed again?")

    assert [message.name for message in messages if isinstance(message, ToolMessage)] == ["search_docs"]
    assert ".md)" in messages[-1].text


async def test_a_refusing_tool_does_not_end_the_run() -> None:
    messages = await ask("What is 9**9**9?")

    assert [message.status for message in messages if isinstance(message, ToolMessage)] == ["error"]
    assert "too large" in messages[-1].text


async def test_tokens_are_streamed() -> None:
    graph = build_graph(OfflineChatModel())
    stream: Any = graph.astream({"messages": [HumanMessage("6*7")]}, stream_mode="messages")
    texts = [str(chunk.text) async for chunk, metadata in stream if metadata["langgraph_node"] == "model"]

    assert len([text for text in texts if text]) > 5
    assert "".join(texts).endswith("6*7 = 42")


@pytest.mark.parametrize("name", ["agent", "research", "approval", "guarded"])
def test_each_graph_loads_by_path_as_langgraph_json_names_it(name: str) -> None:
    spec = spec_from_file_location(f"loaded_by_path_{name}", GRAPHS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)

    assert isinstance(module.graph, CompiledStateGraph)
    assert "messages" in module.graph.get_input_jsonschema()["properties"]
    assert "messages" in module.graph.get_output_jsonschema()["properties"]
    assert module.graph.get_graph(xray=True).nodes
