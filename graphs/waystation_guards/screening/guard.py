"""Screening where the texts come by: before model calls of any graph, in nodes, and of documents that are retrieved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.types import interrupt
from pydantic import ConfigDict

from waystation_guards.audit.audit import AuditEntry, audit
from waystation_guards.blocking import wait_for
from waystation_guards.calls import CallSite, current_config, site_of
from waystation_guards.errors import ContentBlocked
from waystation_guards.ports import Ports, ports_of
from waystation_guards.screening.judge import JUDGING
from waystation_guards.screening.screening import Action, Report, Screening, marked, marked_message, source_of, texts_of
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

log = logging.getLogger(__name__)

_WORDS = {"input": "the input", "tool": "a tool's result", "document": "a document"}


class ScreenGuard:
    """The guard (`watching.Guard`) of screening: looks at each message once, before the first model that reads it.

    Raises ValueError for settings that mark: messages cannot be changed from callbacks.
    """

    def __init__(self, screening: Screening) -> None:
        if "mark" in (screening.settings.on_input, screening.settings.on_tool):
            raise ValueError(
                "on_input or on_tool is mark, which needs middleware or a node; expected is log, interrupt or block"
            )
        self.screening = screening

    async def before_model(self, call: ModelCall) -> None:
        """Look at what the model is about to read.

        Raises:
            ContentBlocked: something in it is taken for an injection, and the settings block.
            GraphInterrupt: the settings ask a person; LangGraph's own.
        """
        if JUDGING.get():
            return
        for message in call.messages:
            await decide(self.screening, message, call.site, call.ports)

    async def after_model(self, call: ModelCall, made: Made) -> None: ...

    async def before_tool(self, call: ToolCall) -> None: ...

    async def after_tool(self, call: ToolCall, made: Made) -> None: ...


async def decide(screening: Screening, message: BaseMessage, site: CallSite, ports: Ports) -> Action:
    """Look at a message and do what the settings say; returns `mark` where the caller has to mark it, else `ignore`.

    Raises:
        ContentBlocked: it is taken for an injection, and the settings block, or somebody who was asked did.
        GraphInterrupt: it waits for an answer.
    """
    source = source_of(message)
    if source is None or (action := screening.settings.action(source)) == "ignore" or not (text := texts_of(message)):
        return "ignore"
    report = await screening.screen(text, source)
    if not report.is_injection:
        return "ignore"
    tool = str(message.name or "") if isinstance(message, ToolMessage) else ""
    return await act(report, action, site, ports, tool=tool)


async def act(report: Report, action: Action, site: CallSite, ports: Ports, *, tool: str = "") -> Action:
    """Do what an action says about a text that is taken for an injection. Raises and returns as `decide`."""
    log.warning(
        "screening took a text for a prompt injection",
        extra={"found": report.text, "action": action, "tool": tool, "node": site.node},
    )
    outcome = "refused" if action == "block" else "allowed"
    detail = {"rules": [one.rule for one in report.findings], "action": action, "source": report.source}
    await audit(ports, AuditEntry.at(site, "content.screened", outcome=outcome, tool=tool, detail=detail))
    if action == "block":
        raise ContentBlocked(f"{_WORDS[report.source]} looks like a prompt injection and was not used")
    if action == "interrupt" and not _is_approved(report, tool):
        raise ContentBlocked(f"{_WORDS[report.source]} looks like a prompt injection and was rejected")
    return "mark" if action == "mark" else "ignore"


def _is_approved(report: Report, tool: str) -> bool:
    """Ask a person, in the form of LangChain's reviews. Raises GraphInterrupt before there is an answer."""
    name = tool or report.source
    about = f"Text from {name} looks like a prompt injection ({report.text}). Use it all the same?"
    answer: Any = interrupt(
        {
            "action_requests": [{"name": "use_untrusted_text", "args": {"source": name}, "description": about}],
            "review_configs": [{"action_name": "use_untrusted_text", "allowed_decisions": ["approve", "reject"]}],
        }
    )
    decisions: Any = cast("dict[str, Any]", answer).get("decisions") if isinstance(answer, dict) else None
    return bool(decisions) and decisions[0].get("type") == "approve"


async def screened(screening: Screening, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages as a model may read them, in a node: looked at, and marked where the settings say so.

    Raises:
        ContentBlocked, GraphInterrupt: as `decide`.
    """
    config = current_config()
    site, ports = site_of(config), ports_of(config)
    result: list[BaseMessage] = []
    for message in messages:
        if await decide(screening, message, site, ports) == "mark":
            message = marked_message(message, source=str(message.name or source_of(message)))
        result.append(message)
    return result


async def screened_documents(screening: Screening, documents: Sequence[Document]) -> list[Document]:
    """The documents that may be used, marked where the settings say so; with `block` the others are left out.

    Raises:
        GraphInterrupt: the settings ask a person.
    """
    config = current_config()
    site, ports, action = site_of(config), ports_of(config), screening.settings.on_document
    result: list[Document] = []
    for document in documents if action != "ignore" else ():
        report = await screening.screen(document.page_content, "document")
        if report.is_injection:
            try:
                if await act(report, action, site, ports) == "mark":
                    source = str(document.metadata.get("source") or "document")
                    document = document.model_copy(
                        update={"page_content": marked(document.page_content, source=_name(source))}
                    )
            except ContentBlocked:
                continue
        result.append(document)
    return result if action != "ignore" else list(documents)


def _name(source: str) -> str:
    """A source as it may stand in a tag."""
    return "".join(one if one.isalnum() or one in "-_./: " else "_" for one in source)[:200]


class ScreenedRetriever(BaseRetriever):
    """A retriever whose documents are screened."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseRetriever
    screening: Screening

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.inner.invoke(query, {"callbacks": run_manager.get_child()})
        kept: list[Document] = []

        async def screen() -> None:
            kept.extend(await screened_documents(self.screening, found))

        wait_for(screen(), None)
        return kept

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        found = await self.inner.ainvoke(query, {"callbacks": run_manager.get_child()})
        return await screened_documents(self.screening, found)
