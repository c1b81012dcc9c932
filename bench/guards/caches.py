"""What the caches cost and save, and how a hundred callers pay once.

    python -m bench.guards.caches [--calls 2000]

Prints tables in Markdown: microseconds of a hit and of what a miss adds, by where the cache is; a stampede over four
processes; what thrift saves of a conversation; and of which near questions a semantic cache gives wrong answers.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from bench.services import Services
from guard_cache_worker import Askers
from providers import FaultServer, Plan
from scripted_calls import ScriptedModel
from waystation.guarding.ports import guard_stores
from waystation_db.pool import Database
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.caching.semantic import may_mean_the_same
from waystation_guards.calls import PORTS_KEY
from waystation_guards.context.thrift import Thrift, prune
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Ports

PROCESSES, CALLERS = 4, 25

SAME = (
    ("how do I reset my password?", "how can I reset my password?"),
    ("what is the capital of France?", "tell me the capital of France"),
    ("why is the sky blue?", "why does the sky look blue?"),
    ("how long does delivery take?", "how long is the delivery time?"),
    ("can I cancel my order?", "is it possible to cancel my order?"),
    ("where is my invoice?", "where do I find my invoice?"),
    ("which payment methods do you accept?", "what payment methods are accepted?"),
    ("how do I change my email address?", "how do I update my email address?"),
    ("do you ship to Norway?", "is shipping to Norway possible?"),
    ("what are your opening hours?", "when are you open?"),
)
OTHER = (
    ("how do I enable the backup?", "how do I disable the backup?"),
    ("is it safe to eat raw eggs?", "is it not safe to eat raw eggs?"),
    ("what costs less than 5 days of rent?", "what costs less than 50 days of rent?"),
    ("which trains go from Berlin to Paris?", "which trains go from Paris to Berlin?"),
    ("who is the best player of the year?", "who is the worst player of the year?"),
    ("can I pay with a card?", "can I pay without a card?"),
    ("please send the invoice INV-1001 again", "please send the invoice INV-1002 again"),
    ("how do I reset my password?", "how do I reset my phone?"),
    ("what is the price of the red chair?", "what is the price of the red table?"),
    ("how do I change my email address?", "how do I change my postal address?"),
    ("when does the store open on monday?", "when does the store open on sunday?"),
    ("how many calories are in an apple?", "how many calories are in a banana?"),
    ("can my brother drive my rented car?", "can my sister drive my rented car?"),
    ("is parking free for guests?", "is breakfast free for guests?"),
)


def embed(text: str) -> list[float]:
    """Letter triples and words counted into 512 places: what needs no model, and is near for texts that look alike."""
    padded = f" {text.lower()} "
    parts = [padded[place : place + 3] for place in range(len(padded) - 2)] + re.findall(r"\w+", text.lower()) * 2
    counts = Counter(sum(ord(letter) * 31**place for place, letter in enumerate(part)) % 512 for part in parts)
    length = sqrt(sum(count * count for count in counts.values()))
    return [counts[place] / length for place in range(512)]


def near(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))


@asynccontextmanager
async def ports_on(kind: str, uri: str, redis: str) -> AsyncGenerator[Ports]:
    if kind == "memory":
        yield memory_ports()
        return
    async with Database(uri, max_size=10) as db:
        stores = guard_stores(db, redis if kind == "Redis" else None)
        try:
            yield stores.ports_for("default")
        finally:
            await stores.close()


async def _each(calls: int, ask: Any) -> list[float]:
    found = list[float]()
    for number in range(calls):
        began = perf_counter()
        await ask(number)
        found.append((perf_counter() - began) * 1e6)
    return found


async def overhead(ports: Ports, calls: int) -> list[tuple[str, list[float]]]:
    """Microseconds of a bare call, a miss and a hit, one after another."""
    config: Any = {"configurable": {PORTS_KEY: ports}}
    bare = ScriptedModel(calls=[])
    model = CachedModel(inner=bare, answers=ResponseCache(CacheRules(temperature="any")))
    prompt = "Tell me about the harbour, please. " * 20
    chunks = [0]

    async def streamed(_: int) -> None:
        stream = model.astream("known", config)
        async for _chunk in stream:
            chunks[0] += 1

    async def plain(number: int) -> None:
        await bare.ainvoke(f"{number} {prompt}")

    async def missed(number: int) -> None:
        await model.ainvoke(f"{number} {prompt}", config)

    async def hit(_: int) -> None:
        await model.ainvoke("known", config)

    await model.ainvoke("known", config)
    return [
        ("the model alone", await _each(calls, plain)),
        ("a miss", await _each(calls, missed)),
        ("a hit", await _each(calls, hit)),
        ("a hit, streamed", await _each(calls, streamed)),
    ]


def stampede(askers: Askers, uri: str, redis: str) -> tuple[int, float]:
    """How many calls were paid for, and the seconds until all had their answer; the model takes one."""
    with FaultServer() as provider:
        provider.always(Plan("ok", first_s=1.0))
        began = perf_counter()
        task = {"uri": uri, "redis": redis, "base_url": provider.openai, "callers": CALLERS, "question": f"{began}"}
        heard = askers.all(task)
        assert all(len(one["said"]) == CALLERS for one in heard)
        return len(provider.settled().bill.charges), perf_counter() - began


def conversation(turns: int) -> list[BaseMessage]:
    """An agent that looks something up twice for each question, and answers in a paragraph."""
    said: list[BaseMessage] = [SystemMessage("You are a careful assistant. " * 30)]
    for turn in range(turns):
        said.append(HumanMessage(f"Question {turn}: what is known about the harbour of town {turn}?"))
        for step in range(2):
            call: Any = {"name": "look", "args": {"page": step}, "id": f"c{turn}-{step}"}
            said += [AIMessage("", tool_calls=[call]), ToolMessage("fact " * 400, tool_call_id=call["id"], name="look")]
        said.append(AIMessage("The harbour is deep and old. " * 20))
    return said


def thrifty(turns: int, thrift: Thrift) -> tuple[int, int, float, int]:
    """Tokens told over a whole conversation without and with thrift, the slowest pruning in milliseconds, and how
    often the beginning of the prompt changed."""
    without = told = changes = 0
    slowest, begin = 0.0, None
    for turn in range(1, turns + 1):
        messages = [*conversation(turn)[:-1]]
        began = perf_counter()
        pruned = prune(messages, thrift)
        slowest = max(slowest, (perf_counter() - began) * 1000)
        without, told = without + count_tokens_approximately(messages), told + pruned.after
        first = str(pruned.messages[1].content)
        changes += begin is not None and first != begin
        begin = first
    return without, told, slowest, changes


def semantic() -> None:
    print("\n| threshold | paraphrases found | wrong answers without checks | wrong answers |\n|---|---|---|---|")
    for threshold in (0.6, 0.7, 0.8, 0.85, 0.9, 0.95):
        found = sum(near(*pair) >= threshold and may_mean_the_same(*pair) for pair in SAME)
        unchecked = sum(near(*pair) >= threshold for pair in OTHER)
        wrong = sum(near(*pair) >= threshold and may_mean_the_same(*pair) for pair in OTHER)
        print(f"| {threshold} | {found} of {len(SAME)} | {unchecked} of {len(OTHER)} | {wrong} of {len(OTHER)} |")


def part(numbers: Sequence[float], share: float) -> float:
    return sorted(numbers)[min(len(numbers) - 1, int(len(numbers) * share))]


async def measure_overhead(uri: str, redis: str, calls: int) -> None:
    print("| cache | what | p50 µs | p99 µs |\n|---|---|---|---|")
    for kind in ("memory", "Redis", "Postgres"):
        async with ports_on(kind, uri, redis) as ports:
            for what, found in await overhead(ports, calls):
                print(f"| {kind} | {what} | {part(found, 0.5):.0f} | {part(found, 0.99):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000)
    calls = min(parser.parse_args().calls, 100_000)
    with Services.running() as services:
        uri, redis = services.database(migrated=True), services.redis()[0]
        uvloop.run(measure_overhead(uri, redis, calls))
        print(f"\n{PROCESSES * CALLERS} callers over {PROCESSES} processes, of a model that takes a second:\n")
        print("| cache | calls paid for | seconds |\n|---|---|---|")
        with Askers(PROCESSES) as askers:
            for kind in ("Redis", "Postgres"):
                stampede(askers, uri, redis if kind == "Redis" else "")
                paid, seconds = stampede(askers, uri, redis if kind == "Redis" else "")
                print(f"| {kind} | {paid} | {seconds:.1f} |")
    print(
        "\n| turns | thrift | tokens without | tokens told | saved | slowest ms | new beginnings |\n" + "|---" * 7 + "|"
    )
    for turns in (20, 60):
        for limit in (4_000, 8_000):
            without, told, slowest, changes = thrifty(turns, Thrift(max_tokens=limit))
            saved = 1 - told / without
            print(f"| {turns} | {limit} | {without:,} | {told:,} | {saved:.0%} | {slowest:.1f} | {changes} |")
    semantic()


if __name__ == "__main__":
    main()
