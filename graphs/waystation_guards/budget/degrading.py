"""Degrades to a cheaper model where a budget says so: the node form of `on_limit="degrade"`.

    model = degrading(ChatOpenAI(model="gpt-5"), ChatOpenAI(model="gpt-5-mini"))
    budget = Budget(Limit(5, scope="user", window="day", on_limit="degrade", degrade_at=0.8))

What comes back is LangChain's `with_fallbacks`: tools can be bound to it, it streams, it can be asked for structured
output. The cheaper model's calls are inside the budget too: they have to fit the whole limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, contextmanager
from itertools import chain, islice
from typing import Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable

from waystation_guards.budget.accounts import degraded
from waystation_guards.errors import BudgetDegrades
from waystation_guards.models.passing import PassingModel

_NOTHING: Final = object()


def degrading(model: BaseChatModel, cheaper: BaseChatModel) -> Runnable[Any, Any]:
    """The model, and the cheaper one in its place where a limit that degrades has no more for it."""
    return model.with_fallbacks([CheaperModel(inner=cheaper)], exceptions_to_handle=(BudgetDegrades,))


class CheaperModel(PassingModel):
    """A model whose calls are allowed what a limit keeps for the cheaper one."""

    kind: str = "cheaper"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _marked():
            return super()._generate(messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _marked():
            return await super()._agenerate(messages, stop, run_manager, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks = super()._stream(messages, stop, run_manager, **kwargs)
        with _marked():  # budgets are asked before the first chunk
            first = list(islice(chunks, 1))
        yield from chain(first, chunks)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = super()._astream(messages, stop, run_manager, **kwargs)
        async with aclosing(cast("Any", chunks)):
            with _marked():
                chunk = await anext(chunks, _NOTHING)
            while chunk is not _NOTHING:
                yield cast("ChatGenerationChunk", chunk)
                chunk = await anext(chunks, _NOTHING)


@contextmanager
def _marked() -> Generator[None]:
    before = degraded.get()
    degraded.set(True)
    try:
        yield
    finally:
        degraded.set(before)
