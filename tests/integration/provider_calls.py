"""Real clients of providers (LangChain's classes) against the fault server, and what came of their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig

from providers import FaultServer, Urls
from waystation_guards.providers.errors import Failure, class_of_answer, classify
from waystation_guards.providers.models import ModelSettings, Timeouts, chat_model

KEY: Final = "FAULT_SERVER_KEY"
"""The variable in which tests put the key that clients send."""

How = Literal["invoke", "ainvoke", "stream", "astream"]
HOWS: Final[tuple[How, ...]] = ("invoke", "ainvoke", "stream", "astream")

QUICK: Final = Timeouts(connect_s=10.0, first_token_s=2.0, between_tokens_s=2.0, whole_s=4.0)
"""For providers that hang: what waits for something waits this long at most."""
PATIENT: Final = Timeouts(connect_s=10.0, first_token_s=30.0, between_tokens_s=30.0, whole_s=60.0)

SEARCH: Final = {
    "name": "search",
    "description": "Search.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}


def _settings(model: str, url: str, timeouts: Timeouts, **more: Any) -> ModelSettings:
    return ModelSettings(model, base_url=url, api_key_env=KEY, timeouts=timeouts, **more)


def _chat(urls: Urls, timeouts: Timeouts) -> BaseChatModel:
    return chat_model(_settings("openai:m", urls.openai, timeouts))


def _responses(urls: Urls, timeouts: Timeouts) -> BaseChatModel:
    return chat_model(_settings("openai:m", urls.openai, timeouts), use_responses_api=True)


def _messages(urls: Urls, timeouts: Timeouts) -> BaseChatModel:
    return chat_model(_settings("anthropic:m", urls.anthropic, timeouts))


def _azure(urls: Urls, timeouts: Timeouts) -> BaseChatModel:
    more = {"deployment": "d", "api_version": "2024-10-21"}
    return chat_model(_settings("azure:m", urls.azure, timeouts, **more))


CLIENTS: Final[Mapping[str, Callable[[Urls, Timeouts], BaseChatModel]]] = {
    "chat completions": _chat,
    "responses": _responses,
    "anthropic": _messages,
    "azure": _azure,
}


@dataclass(slots=True)
class Outcome:
    """What a caller saw of a call: the pieces' text, and how it ended."""

    text: str = ""
    answer: AIMessage | None = None
    error: Exception | None = None

    @property
    def failure(self) -> Failure:
        assert self.error is not None, f"it answered {self.text!r}"
        return classify(self.error)

    @property
    def kind(self) -> str:
        """The class of what went wrong, also where it arrived as a success; `answer` for an answer."""
        if self.error is not None:
            return self.failure.kind
        assert self.answer is not None
        return class_of_answer(self.answer) or "answer"

    @property
    def total_tokens(self) -> int | None:
        used = self.answer.usage_metadata if self.answer else None
        return used["total_tokens"] if used else None


async def called(
    model: Runnable[Any, AIMessage], how: How, *, asked: Any = "hi there", config: RunnableConfig | None = None
) -> Outcome:
    """Call a model in one of four ways; those that block in a thread."""
    outcome = Outcome()
    try:
        if how == "ainvoke":
            outcome.answer = await model.ainvoke(asked, config)
        elif how == "astream":
            async for piece in model.astream(asked, config):
                _add(outcome, piece)
        else:
            # Not in the loop's own threads: those look up addresses for what is awaited.
            context, loop = copy_context(), asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as thread:
                await loop.run_in_executor(thread, lambda: context.run(_blocking, model, how, asked, config, outcome))
    except Exception as error:
        outcome.error = error
    if outcome.answer is not None and how in ("invoke", "ainvoke"):
        outcome.text = outcome.answer.text
    return outcome


async def matrix(
    provider: FaultServer, fault: Any, *, timeouts: Timeouts = PATIENT, urls: Urls | None = None, tools: bool = True
) -> dict[tuple[str, How], Outcome]:
    """What comes of a fault for every client and every way to call it, at the same time."""
    cases: list[tuple[str, How]] = [(name, how) for name in CLIENTS for how in HOWS]
    for name, how in cases:
        provider.target(f"{name}.{how}").always(fault)

    def model(name: str, how: How) -> Runnable[Any, AIMessage]:
        made = CLIENTS[name](urls or provider.urls(f"{name}.{how}".replace(" ", "%20")), timeouts)
        return made.bind_tools([SEARCH]) if tools else made

    models = [model(name, how) for name, how in cases]
    calls = (called(model, how) for model, (_, how) in zip(models, cases, strict=True))
    outcomes = await asyncio.gather(*calls)
    return dict(zip(cases, outcomes, strict=True))


def _blocking(
    model: Runnable[Any, AIMessage], how: How, asked: Any, config: RunnableConfig | None, outcome: Outcome
) -> None:
    if how == "invoke":
        outcome.answer = model.invoke(asked, config)
        return
    for piece in model.stream(asked, config):
        _add(outcome, piece)


def _add(outcome: Outcome, piece: AIMessage) -> None:
    outcome.text += piece.text
    before = outcome.answer
    assert isinstance(piece, AIMessageChunk)
    assert before is None or isinstance(before, AIMessageChunk)
    outcome.answer = piece if before is None else before + piece
