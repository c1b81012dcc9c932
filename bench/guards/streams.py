"""What whole streams add to each token, in microseconds: a stream's time with them less its time without.

    python -m bench.guards.streams [--rounds 15] [--tokens 2000]

CPU of the thread that reads, so that neither the providers nor a busy machine count. Two sources: a model that has
all its chunks ready (what is added, with nothing to hide behind), and the real clients against providers on this
machine over HTTP (what that is next to what a token costs anyway). Awaited and blocking. Prints a table in Markdown:
median and range over the rounds, of means over a stream's tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from providers import FaultServer, Plan
from waystation_guards.providers.models import ModelSettings, chat_model
from waystation_guards.providers.whole_streams import StreamRules, whole_astream, whole_stream, with_whole_streams

RULES = StreamRules(needs_end=True)


class Ready(BaseChatModel):
    """A stream without any waiting."""

    tokens: int

    @property
    def _llm_type(self) -> str:
        return "ready"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        for _number in range(self.tokens):
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))
        info = {"finish_reason": "stop"}
        yield ChatGenerationChunk(message=AIMessageChunk(content=""), generation_info=info)

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in self._stream(messages):
            yield piece


async def awaited(model: BaseChatModel) -> None:
    async for _ in model.astream("hi"):
        pass


def blocking(model: BaseChatModel) -> None:
    for _ in model.stream("hi"):
        pass


async def bare_awaited(pieces: list[ChatGenerationChunk], *, held: bool) -> None:
    async def source() -> AsyncIterator[ChatGenerationChunk]:
        for piece in pieces:
            yield piece

    async for _ in whole_astream(source(), RULES, needs_end=True) if held else source():
        pass


def bare_blocking(pieces: list[ChatGenerationChunk], *, held: bool) -> None:
    def source() -> Iterator[ChatGenerationChunk]:
        yield from pieces

    for _ in whole_stream(source(), RULES, needs_end=True) if held else source():
        pass


def per_token_us(once: Callable[[], Any], tokens: int) -> float:
    began = thread_time()
    once()
    return (thread_time() - began) * 1e6 / tokens


def compared(title: str, plain: Callable[[], Any], held: Callable[[], Any], tokens: int, rounds: int) -> str:
    plain()
    held()
    pairs = [(per_token_us(plain, tokens), per_token_us(held, tokens)) for _ in range(rounds)]
    added = [with_them - without for without, with_them in pairs]
    before = median(without for without, _ in pairs)
    return f"| {title} | {before:.1f} | {median(added):.1f} | {min(added):.1f} to {max(added):.1f} |"


def rows(tokens: int, rounds: int) -> Iterator[str]:
    with asyncio.Runner() as runner:
        ready = Ready(tokens=tokens)
        pieces = list(ready._stream([]))  # pyright: ignore[reportPrivateUsage]: the source itself is measured
        yield compared(
            "nothing but the chunks, awaited",
            lambda: runner.run(bare_awaited(pieces, held=False)),
            lambda: runner.run(bare_awaited(pieces, held=True)),
            tokens,
            rounds,
        )
        yield compared(
            "nothing but the chunks, blocking",
            lambda: bare_blocking(pieces, held=False),
            lambda: bare_blocking(pieces, held=True),
            tokens,
            rounds,
        )
        yield from _models("a model at once", ready, with_whole_streams(ready, RULES), runner, tokens, rounds)
        with FaultServer() as provider:
            provider.always(Plan(text="word " * tokens))
            for name, url in (("openai", provider.openai), ("anthropic", provider.anthropic)):
                settings = ModelSettings(f"{name}:m", base_url=url, api_key_env="BENCH_KEY")
                held = chat_model(settings, max_tokens=tokens)
                plain = held.model_copy()
                plain.__class__ = type(held).__mro__[2]  # the client's own class, with the same HTTP client
                yield from _models(f"{name} over HTTP", plain, held, runner, tokens, rounds)


def _models(
    title: str, plain: BaseChatModel, held: BaseChatModel, runner: asyncio.Runner, tokens: int, rounds: int
) -> Iterator[str]:
    yield compared(
        f"{title}, awaited",
        lambda: runner.run(awaited(plain)),
        lambda: runner.run(awaited(held)),
        tokens,
        rounds,
    )
    yield compared(f"{title}, blocking", lambda: blocking(plain), lambda: blocking(held), tokens, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=2000)
    given = parser.parse_args()
    os.environ["BENCH_KEY"] = "k"
    print("| stream | without, µs per token | added, µs per token | range |")
    print("|---|---|---|---|")
    for row in rows(given.tokens, given.rounds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
