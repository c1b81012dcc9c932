"""What permissions, screening, redaction, caps and the audit log cost per call: `python -m bench.guards.safety`.

In one process, without any model or network; with DATABASE_URI set also the audit log on Postgres. p50 and p99 of calls
in microseconds, with the machine's own noise in them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from waystation_guards.audit.audit import AuditEntry
from waystation_guards.audit.memory import MemoryAuditLog
from waystation_guards.calls import CallSite
from waystation_guards.caps.caps import CapGuard, Caps
from waystation_guards.memory.ports import memory_ports
from waystation_guards.permissions.arguments import ArgumentRule
from waystation_guards.permissions.permissions import Permissions, ToolGuard, ToolRule
from waystation_guards.redaction.redaction import DEFAULT
from waystation_guards.screening.guard import ScreenGuard
from waystation_guards.screening.screening import Screening, ScreenSettings
from waystation_guards.watching.watcher import ModelCall, ToolCall

ROUNDS = 2000
PLAIN = "The order was packed on Monday and left the house an hour later; nobody was at home when it came. "
SITE = CallSite(tenant="acme", user="ada", thread="t", run="r", node="tools", roles=("role:service",))


def show(name: str, times: list[int]) -> None:
    ordered = sorted(times)
    p50, p99 = ordered[len(ordered) // 2] / 1000, ordered[int(len(ordered) * 0.99)] / 1000
    print(f"{name:<62} {p50:>10.1f} {p99:>10.1f}")


def blocking(name: str, work: Callable[[int], Any], rounds: int = ROUNDS) -> None:
    times: list[int] = []
    for number in range(rounds):
        begin = perf_counter_ns()
        work(number)
        times.append(perf_counter_ns() - begin)
    show(name, times)


async def awaited(name: str, work: Callable[[int], Awaitable[Any]], rounds: int = ROUNDS) -> None:
    times: list[int] = []
    for number in range(rounds):
        begin = perf_counter_ns()
        await work(number)
        times.append(perf_counter_ns() - begin)
    show(name, times)


def permissions() -> Permissions:
    """Fifty rules, of which one is about the tool that is called."""
    others = [ToolRule((f"tool_{number}_*",), roles=("service",)) for number in range(48)]
    return Permissions(
        *others,
        ToolRule(
            ("refund",), arguments=(ArgumentRule("amount", maximum=100), ArgumentRule("to.iban", matches="[A-Z0-9]+"))
        ),
        ToolRule(("refund",), "approve", arguments=(ArgumentRule("amount", minimum=90),)),
    )


async def guards() -> None:
    ports = memory_ports()
    rules, guard = permissions(), ToolGuard(permissions())
    call = ToolCall("1", SITE, ports, "refund", {"amount": 5, "to": {"iban": "DE89370400440532013000"}})
    blocking("permissions: judge a call against 50 rules", lambda _: rules.judge("refund", call.arguments))
    await awaited("permissions: guard, a call that is allowed", lambda _: guard.before_tool(call))

    def model_call(number: int) -> ModelCall:
        messages = [HumanMessage(f"{number} {PLAIN * 3}"), AIMessage("ok"), ToolMessage(PLAIN * 20, tool_call_id="1")]
        return ModelCall("1", SITE, ports, "m", "p", messages, {})

    calls = [model_call(number) for number in range(ROUNDS)]
    caps = CapGuard(Caps(input_tokens=100_000, input_chars=500_000, model_calls=10**6, parallel_calls=10**6))

    async def capped(number: int) -> None:
        await caps.before_model(calls[number])
        await caps.after_model(calls[number], "made")

    await awaited("caps: before and after a model call, 3 messages, 2.3 kB", capped)
    screen = ScreenGuard(Screening(ScreenSettings(on_input="block", on_tool="block")))
    await awaited("screening: guard, 3 messages, one of them new (0.3 kB)", lambda n: screen.before_model(calls[n]))
    await awaited("screening: guard, 3 messages that are known", lambda n: screen.before_model(calls[-1]))


def texts() -> None:
    screening = Screening()
    for size in (300, 2_000, 20_000):
        text = (PLAIN * 300)[: size - 8]
        blocking(
            f"screening: a new tool result of {size} characters",
            lambda n, t=text: screening.look(f"{n:08}{t}", "tool"),
            300,
        )
    for size in (100, 1_000, 10_000):
        text = (PLAIN * 150)[:size]
        blocking(f"redaction: {size} characters in which nothing is", lambda _, t=text: DEFAULT.text(t))
        found = f"{text[:-20]} a@b.example "
        blocking(f"redaction: {size} characters with an address in them", lambda _, t=found: DEFAULT.text(t))
    line = {
        "event": "A run ended",
        "run_id": "019a8f2e-7c1b-7e2a-9d55-1234567890ab",
        "status": "success",
        "took_s": 1.25,
    }
    blocking("redaction: a log line of four members", lambda _: DEFAULT.value(line))


def entry(number: int) -> AuditEntry:
    return AuditEntry.at(SITE, "tool.refused", outcome="refused", tool="refund", arguments={"amount": number})


async def audit() -> None:
    log = MemoryAuditLog()
    blocking("audit: make an entry", entry)
    entries = [entry(number) for number in range(ROUNDS)]
    await awaited("audit: in memory, chained", lambda n: log.record(entries[n]))
    if uri := os.environ.get("DATABASE_URI"):
        await audit_on_postgres(uri, entries)


async def audit_on_postgres(uri: str, entries: list[AuditEntry]) -> None:
    from waystation.guarding.audit import AuditWriter, PostgresAuditLog
    from waystation_db.pool import Database
    from waystation_guards.audit.chain import verify_log

    async with Database(uri, max_size=4, name="bench") as db:
        log = PostgresAuditLog(db)
        async with AuditWriter.running(log) as writer:
            await awaited("audit: server, gathered (what a request or call pays)", lambda n: writer.record(entries[n]))
            begin = perf_counter_ns()
        took = (perf_counter_ns() - begin) / 1e9
        print(f"{'audit: entries a second, one tenant, until committed':<62} {len(entries) / took:>10.0f}")
        async with AuditWriter.running(log, durable=True) as writer:
            await awaited("audit: server, durable (waits for the commit)", lambda n: writer.record(entries[n]), 300)
        begin = perf_counter_ns()
        verdict = await verify_log(log, SITE.tenant)
        took = (perf_counter_ns() - begin) / 1e9
        print(f"{'audit: records verified a second':<62} {verdict.records / took:>10.0f}")


async def main() -> None:
    print(f"{'microseconds':<62} {'p50':>10} {'p99':>10}")
    await guards()
    texts()
    await audit()


if __name__ == "__main__":
    asyncio.run(main())
