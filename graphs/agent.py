"""A tool-calling agent: the model calls tools until it can answer.

Three local tools that need no key: a calculator, a clock, and a search over this repository's documentation. Try

    What is 17 * 23, and what time is it in Tokyo?
    How does Waystation make sure that a step is not executed twice?
"""

# pyright: reportUnknownVariableType=false
# `create_agent` is generic in parameters that it leaves open.

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langgraph.graph.state import CompiledStateGraph

from calculator import calculator
from chat_model import chat_model
from clock import clock
from docs_search import search_docs

SYSTEM_PROMPT = (
    "You are a helpful assistant. Use the calculator for every calculation and the clock for every question about the "
    "date or time. For questions about Waystation search its documentation first, answer from what you find, and name "
    "the files."
)


def build_graph(model: BaseChatModel) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent with a model of the caller's choice."""
    return create_agent(model, [calculator, clock, search_docs], system_prompt=SYSTEM_PROMPT, name="agent")


graph = build_graph(chat_model())
