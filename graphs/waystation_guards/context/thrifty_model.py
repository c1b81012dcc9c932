"""A chat model that is told no more than it has to be: the form of `Thrift` for any node, chain or agent.

What is left out can be summarised by another (cheaper) model. The summary of a thread is kept in the cache and
continued, so that each turn is summarised once; it is a call of its own, which guards see and the ledger bills. What
the shorter context saved is an entry of the ledger, and `response_metadata["waystation_context"]` says it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, get_buffer_string
from langchain_core.messages.utils import count_tokens_approximately

from waystation_guards.budget.pricing import Prices
from waystation_guards.budget.savings import cost_of, name_of, record_saving
from waystation_guards.caching.keys import digest_of, key_of, plain_messages
from waystation_guards.context.thrift import Pruned, Thrift, prune
from waystation_guards.models.preparing import Prepared, PreparingModel, Told

log = logging.getLogger(__name__)

MARK: Final = "waystation_context"
SUMMARY_PROMPT: Final = """Summarise the conversation below for the assistant who will continue it without seeing it.
Keep what was asked, decided, found out and done, with names, numbers, identifiers and open questions; leave out the
rest. Answer with the summary alone.

<conversation>
{conversation}
</conversation>"""

_SUMMARY_TTL_S: Final = 7 * 24 * 3600.0
_STORE_S: Final = 0.5
_FIRST: Final = 3
"""The messages by which a conversation is known that has no thread."""


class ThriftyModel(PreparingModel):
    """Passes on a shorter context."""

    kind: str = "thrifty"
    thrift: Thrift = Thrift()
    summariser: BaseChatModel | None = None
    """Says what was in the turns that are left out; None: nobody does."""
    summary_prompt: str = SUMMARY_PROMPT
    prices: Prices = Prices()

    async def prepared(self, told: Told) -> Prepared:
        pruned = prune(told.messages, self.thrift)
        if pruned.before == pruned.after:
            return Prepared(told.messages, told.kwargs)
        messages, summarised = pruned.messages, list[AIMessage]()
        if self.summariser is not None and pruned.dropped:
            messages, summarised = await self._with_summary(told, pruned)
        saved = pruned.before - count_tokens_approximately(messages)
        detail = {"saved_tokens": saved, "messages_left_out": len(pruned.dropped), "results_cleared": pruned.cleared}
        return Prepared(messages, told.kwargs, mark={MARK: detail}, note=(detail, summarised))

    async def learned(self, told: Told, prepared: Prepared, message: AIMessage) -> None:
        if prepared.note is None:
            return
        detail, summarised = cast("tuple[dict[str, Any], list[AIMessage]]", prepared.note)
        model, provider = name_of(self.inner, told.kwargs)
        tokens = detail["saved_tokens"]
        saved = cost_of(self.prices, model, provider, {"input_tokens": tokens, "output_tokens": 0})
        made = self._summary_detail(summarised) if summarised else {}
        if saved is not None:
            saved -= made.get("summary_nano_usd") or 0
        await record_saving(
            told.ports, told.site, model, {"what": "context", **detail, **made, "saved_nano_usd": saved}
        )

    async def _with_summary(self, told: Told, pruned: Pruned) -> tuple[list[BaseMessage], list[AIMessage]]:
        try:
            summary, made = await self._summary(told, pruned.dropped)
        except Exception as error:  # a budget that refuses, a provider that fails: the turns are left out without it
            log.warning("turns are left out of a context without a summary: %s", error)
            return pruned.messages, []
        lead = [message for message in pruned.messages if isinstance(message, SystemMessage)]
        rest = [message for message in pruned.messages if not isinstance(message, SystemMessage)]
        text = f"Here is a summary of the conversation until now:\n\n{summary}"
        said = HumanMessage(text, additional_kwargs={"lc_source": "summarization"})
        return [*lead, said, *rest], made

    async def _summary(self, told: Told, dropped: Sequence[BaseMessage]) -> tuple[str, list[AIMessage]]:
        """The summary of what is left out, continued from where the last one ended, and the calls that it took."""
        assert self.summariser is not None
        key, made = self._key(told), list[AIMessage]()
        done, text = await _read(told, key, dropped)
        for piece in _pieces(dropped[done:], self.thrift.max_tokens):
            before = [HumanMessage(f"Summary of what was before:\n{text}")] if text else []
            prompt = self.summary_prompt.replace("{conversation}", get_buffer_string([*before, *piece]))
            made.append(await self.summariser.ainvoke([HumanMessage(prompt)], told.below))
            text = str(made[-1].text)
        if made:
            await _write(told, key, dropped, text)
        return text, made

    def _key(self, told: Told) -> str:
        whose = [told.site.thread, told.site.node] if told.site.thread else plain_messages(told.messages[:_FIRST])
        return key_of("summary", told.site, "tenant", digest_of([whose, self.summary_prompt]))

    def _summary_detail(self, made: Sequence[AIMessage]) -> dict[str, Any]:
        model, provider = name_of(cast("BaseChatModel", self.summariser))
        usages = [cast("dict[str, Any]", one.usage_metadata or {}) for one in made]
        costs = [cost_of(self.prices, model, provider, usage) for usage in usages]
        return {
            "summary_tokens": sum(int(usage.get("total_tokens") or 0) for usage in usages),
            "summary_nano_usd": sum(cost or 0 for cost in costs),
        }


def _pieces(messages: Sequence[BaseMessage], tokens: int) -> Iterator[list[BaseMessage]]:
    """The messages in parts that a model can read at once; a message that is longer is a part of its own."""
    piece, size = list[BaseMessage](), 0
    for message in messages:
        adds = count_tokens_approximately([message])
        if piece and size + adds > tokens:
            yield piece
            piece, size = [], 0
        piece.append(message)
        size += adds
    if piece:
        yield piece


async def _read(told: Told, key: str, dropped: Sequence[BaseMessage]) -> tuple[int, str]:
    """How many of the messages a kept summary covers, and that summary. One of other messages covers none."""
    try:
        async with asyncio.timeout(_STORE_S):
            data = await told.ports.cache.get(key)
        kept = None if data is None else json.loads(data)
        if kept and 0 < kept["count"] <= len(dropped) and kept["of"] == _digest(dropped[: kept["count"]]):
            return int(kept["count"]), str(kept["text"])
    except Exception as error:  # the summary is made anew
        log.warning("a kept summary cannot be read", exc_info=error)
    return 0, ""


async def _write(told: Told, key: str, dropped: Sequence[BaseMessage], text: str) -> None:
    kept = {"count": len(dropped), "of": _digest(dropped), "text": text}
    try:
        async with asyncio.timeout(_STORE_S):
            await told.ports.cache.put(key, json.dumps(kept).encode(), ttl_s=_SUMMARY_TTL_S)
    except Exception as error:  # it is made again with the next turn
        log.warning("a summary cannot be kept", exc_info=error)


def _digest(messages: Sequence[BaseMessage]) -> str:
    return digest_of(plain_messages(messages))
