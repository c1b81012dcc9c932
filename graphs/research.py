"""Research in parallel: plan questions, answer each in a worker of its own, write one report.

    plan ──Send──▶ worker (search → note) ─┐
         ──Send──▶ worker (search → note) ─┼─▶ report
         ──Send──▶ worker (search → note) ─┘

A worker is a compiled subgraph: stream with `stream_subgraphs` to see its steps and its progress under their own
namespace. Progress is streamed in the `custom` mode as `{"stage": ..., ...}`. The material is this repository's
documentation; put a web search into `search` for more. Try

    Research leases and fencing and checkpoints
"""

# pyright: reportUnknownMemberType=false
# The methods of LangGraph's builder are generic in parameters that it leaves open; the nodes themselves are typed here.

from typing import Annotated, Any, NotRequired

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # on Python 3.11 pydantic makes no schema from the one in `typing`

from chat_model import chat_model
from docs_search import docs_index, format_passages

MOST_QUESTIONS = 5
PLAN_PROMPT = "Split the user's topic into two to four short questions that can be researched independently."
NOTE_PROMPT = "Answer the question from the passages alone, in a few sentences. Name the file of each statement."
REPORT_PROMPT = "Write a short report from the notes. Keep the file names. Say what the notes leave open."


class Finding(TypedDict):
    question: str
    note: str


def gather(findings: list[Finding], new: list[Finding] | None) -> list[Finding]:
    """Workers add what they found; `None` begins anew, so that a thread's second topic does not report on the first."""
    return [] if new is None else findings + new


class ResearchPlan(BaseModel):
    """The questions to research."""

    questions: list[str] = Field(min_length=1, description="Two to four short, independent questions.")


class Research(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    questions: NotRequired[list[str]]
    findings: NotRequired[Annotated[list[Finding], gather]]


class ResearchInput(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Work(TypedDict):
    question: str
    passages: NotRequired[str]
    findings: NotRequired[list[Finding]]


class WorkResult(TypedDict):
    findings: list[Finding]


def build_worker(model: BaseChatModel) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The subgraph that answers one question: search, then note what was found."""

    def search(state: Work) -> dict[str, Any]:
        found = docs_index().search(state["question"])
        files = sorted({passage.source for passage in found})
        get_stream_writer()({"stage": "search", "question": state["question"], "files": files})
        return {"passages": format_passages(found)}

    async def note(state: Work) -> dict[str, Any]:
        prompt = f"Question: {state['question']}\n\n{state.get('passages') or '(no passage found)'}"
        answer = await model.ainvoke([SystemMessage(NOTE_PROMPT), HumanMessage(prompt)])
        get_stream_writer()({"stage": "note", "question": state["question"]})
        return {"findings": [Finding(question=state["question"], note=str(answer.text))]}

    builder = StateGraph(Work, output_schema=WorkResult)
    builder.add_node("search", search)
    builder.add_node("note", note)
    builder.add_edge(START, "search")
    builder.add_edge("search", "note")
    builder.add_edge("note", END)
    return builder.compile(name="worker")


def build_graph(model: BaseChatModel) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The whole graph with a model of the caller's choice."""
    planner = model.with_structured_output(ResearchPlan)

    async def plan(state: Research) -> dict[str, Any]:
        made = ResearchPlan.model_validate(await planner.ainvoke([SystemMessage(PLAN_PROMPT), _topic(state)]))
        questions = list(dict.fromkeys(made.questions))[:MOST_QUESTIONS]
        get_stream_writer()({"stage": "plan", "questions": questions})
        return {"questions": questions, "findings": None}

    def to_workers(state: Research) -> list[Send]:
        return [Send("worker", Work(question=question)) for question in state.get("questions", [])]

    async def report(state: Research) -> dict[str, Any]:
        findings = state.get("findings", [])
        get_stream_writer()({"stage": "report", "findings": len(findings)})
        notes = "\n\n".join(f"## {finding['question']}\n\n{finding['note']}" for finding in findings)
        prompt = f"Topic: {_topic(state).text}\n\n{notes}"
        return {"messages": [await model.ainvoke([SystemMessage(REPORT_PROMPT), HumanMessage(prompt)])]}

    builder = StateGraph(Research, input_schema=ResearchInput)
    builder.add_node("plan", plan)
    builder.add_node("worker", build_worker(model))
    builder.add_node("report", report)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", to_workers, ["worker"])
    builder.add_edge("worker", "report")
    builder.add_edge("report", END)
    return builder.compile(name="research")


def _topic(state: Research) -> HumanMessage:
    asked = [message for message in state["messages"] if isinstance(message, HumanMessage)]
    return asked[-1] if asked else HumanMessage("Waystation")


graph = build_graph(chat_model())
