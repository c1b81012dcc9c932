"""What the offline model says: rules instead of a language model, so that all can be tried with no key and no network.

A rule reads the user's words and either fills in the arguments of a tool that it knows by name, or stays out. An answer
is put together from what the tools returned, word for word. Nothing here understands anything, and every answer
says so.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call

from clock import zones_named_in
from docs_search import terms

NOTICE: Final = "[offline model: fixed rules, no language model]"
"""The first words of every answer."""

Arguments = dict[str, Any]

# Rules look at the beginning of a message only: a pasted book shall not keep the event loop busy.
_LONGEST_READ: Final = 2000
_QUOTED_SENTENCES: Final = 4


@dataclass(frozen=True)
class Reply:
    """Either the tools to call or the text to say."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


def decide(messages: Sequence[BaseMessage], tools: Collection[str]) -> Reply:
    """The next step of the tool loop: answer from results, call tools that fit the user's words, or answer without."""
    asked_at = max((at for at, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    question = str(messages[asked_at].text) if asked_at >= 0 else ""
    results = [message for message in messages[asked_at + 1 :] if isinstance(message, ToolMessage)]
    if results:
        return Reply(text=f"{NOTICE}\n\n" + "\n\n".join(_from_result(question, result) for result in results))
    if calls := _choose(question[:_LONGEST_READ], tools):
        return Reply(tool_calls=calls)
    return Reply(text=f"{NOTICE}\n\n{_from_prompt(question)}")


def _choose(question: str, tools: Collection[str]) -> tuple[ToolCall, ...]:
    chosen = {name: rule(question) for name, rule in _RULES.items() if name in tools}
    calls = {name: arguments for name, found in chosen.items() for arguments in found}
    if not calls and "search_docs" in tools and terms(question):
        calls["search_docs"] = {"query": question[:400]}
    return tuple(tool_call(name=name, args=args, id=f"call_{uuid4().hex}") for name, args in calls.items())


# Rules: none or one set of arguments -------------------------------------------------------------------------------


_SPOKEN: Final[Mapping[str, str]] = {
    r"\bplus\b": "+",
    r"\bminus\b": "-",
    r"\b(?:times|multiplied by)\b": "*",
    r"\bdivided by\b": "/",
    r"\bto the power of\b": "**",
    r"\bsquare root of (\d+(?:\.\d+)?)": r"sqrt(\1)",
}
_ARITHMETIC: Final = re.compile(
    r"(?:(?:abs|ceil|cos|exp|factorial|floor|log10|log|max|min|round|sin|sqrt|tan)\(|[\d.()+*/%^×÷,\s-]|\bpi\b)+"
)
_IS_SUM: Final = re.compile(r"[\d)][\s)]*[-+*/%^×÷]+[\s(]*[-\d(a-z]|[a-z]\(")


def _arithmetic(question: str) -> list[Arguments]:
    text = question.lower()
    for spoken, sign in _SPOKEN.items():
        text = re.sub(spoken, sign, text)
    candidates = [found.group().strip(" ,.\n\t") for found in _ARITHMETIC.finditer(text)]
    sums = [found for found in candidates if _IS_SUM.search(found) and not re.fullmatch(r"\d{4}-\d\d?-\d\d?", found)]
    return [{"expression": max(sums, key=len)}] if sums else []


def _time(question: str) -> list[Arguments]:
    if not re.search(r"\b(what time|time is it|the time|time in|date|today|clock)\b", question.lower()):
        return []
    zones = zones_named_in(question)
    return [{"timezone": zones[0] if zones else "UTC"}]


def _email(question: str) -> list[Arguments]:
    if _outbox(question) or not re.search(r"\b(e-?mail|mail|send|write|tell)\b", question.lower()):
        return []
    address = re.search(r"[\w.+-]+@[\w.-]+\w", question)
    name = re.search(r"\b(?:to|tell|e-?mail|mail)\s+(?!to\b|an?\b|the\b|e-?mail\b)([A-Za-z]+)", question)
    said = re.search(r"(?:\b(?:saying|that says|and say)|:)\s*(.+)", question, flags=re.DOTALL)
    before = question[: said.start()] if said else question
    about = re.search(r"\babout\s+([^.\n]+)", before)
    subject = about.group(1).strip(" ,") if about else "A message from your agent"
    to = address.group() if address else f"{name.group(1).lower() if name else 'someone'}@example.com"
    return [{"to": to, "subject": subject, "body": said.group(1).strip() if said else f"Hello,\n\n{question}"}]


def _outbox(question: str) -> list[Arguments]:
    return [{}] if re.search(r"\boutbox\b|\b(was|were|have you|been) sent\b", question.lower()) else []


_ASKS_FOR: Final = re.compile(
    r"^\W*(please\s+)?(research|investigate|compare|explain|report on|(write|give me) a report (on|about)|tell me about"
    r"|what (is|are))\s+",
    re.IGNORECASE,
)


def _plan(question: str) -> list[Arguments]:
    topic = _ASKS_FOR.sub("", question.strip()).strip(" .?!\n")
    parts = [part.strip() for part in re.split(r",|\band\b|\bversus\b|\bvs\b\.?", topic) if part.strip()]
    if len(parts) > 1:
        return [{"questions": [f"What is meant by {part[:200]}?" for part in parts[:4]]}]
    subject = topic[:200] or "this"
    asked = ("What is meant by {}?", "How is {} done?", "What are the limits of {}?")
    return [{"questions": [question.format(subject) for question in asked]}]


_RULES: Final[Mapping[str, Callable[[str], list[Arguments]]]] = {
    "calculator": _arithmetic,
    "clock": _time,
    "list_outbox": _outbox,
    "send_email": _email,
    "ResearchPlan": _plan,
}


# Answers -----------------------------------------------------------------------------------------------------------


def _from_result(question: str, result: ToolMessage) -> str:
    content = str(result.text)
    if result.status == "error":
        return f"`{result.name}` did not do it: {content}"
    return _quote(question, content) if result.name == "search_docs" else content


def _from_prompt(prompt: str) -> str:
    """Answer a prompt that brings its own material below its first line; without any, say what this model is."""
    task, _, material = prompt.partition("\n")
    if re.search(r"^## ", material, flags=re.MULTILINE):
        return f"# {task.partition(': ')[2] or task}\n\n{material.replace(NOTICE, '').strip()}"
    if material.strip():
        return _quote(task, material)
    return "No tool of this graph fits your message, and without a language model there is nothing more to say to it."


def _quote(question: str, material: str) -> str:
    """The sentences that share most words with the question, each with the file it is from."""
    wanted = set(terms(question))
    sentences = list(_sentences(material[: 10 * _LONGEST_READ]))
    ranked = sorted(range(len(sentences)), key=lambda at: (-len(wanted & set(terms(sentences[at][1]))), at))
    best = [sentences[at] for at in sorted(ranked[:_QUOTED_SENTENCES]) if wanted & set(terms(sentences[at][1]))]
    if not best:
        return "The documentation says nothing on this."
    return "\n".join(f"- {sentence} ({source})" if source else f"- {sentence}" for source, sentence in best)


def _sentences(material: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    source = ""
    # Code and tables make no sentence; list items do.
    prose = re.sub(r"```.*?(?:```|\Z)|^\|[^\n]*$", "", material, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^\s*[-*] ", "\n", prose, flags=re.MULTILINE)
    for block in re.split(r"\n\s*\n", prose):
        if named := re.match(r"\[([^\]\n]+\.md)\][^\n]*\n?", block):
            source = named.group(1)
        text = " ".join((block[named.end() :] if named else block).split())
        found += [(source, part) for part in re.split(r"(?<=[.!?])\s+(?=[A-Z`*\[-])", text) if len(part) > 15]
    return found
