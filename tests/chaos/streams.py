"""Reading a resumable stream as a client does that loses its connection again and again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from chaos.runs_api import Accepted, body


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as it came over the wire."""

    id: str
    name: str
    data: Any

    @property
    def position(self) -> tuple[int, int]:
        epoch, counter = self.id.split("-")
        return int(epoch), int(counter)


@dataclass(slots=True)
class Reader:
    """Creates a run and follows it to its end, over as many connections as it takes."""

    client: httpx.AsyncClient
    dice: random.Random
    events: list[Sent] = field(default_factory=list[Sent])
    connections: int = 0
    run: Accepted | None = None

    async def follow(self, thread_id: str, graph: str, given: dict[str, Any], *, patience: int) -> list[Sent]:
        """Read to the end, leaving after at most `patience` events each time. The events in the order they came in."""
        deadline = time.monotonic() + 90
        while not await self._read_some(thread_id, graph, given, self.dice.randint(1, patience)):
            assert time.monotonic() < deadline, f"no end after {len(self.events)} events"
        return self.events

    async def _read_some(self, thread_id: str, graph: str, given: dict[str, Any], count: int) -> bool:
        """True at the end of the stream."""
        self.connections += 1
        try:
            async with self._request(thread_id, graph, given) as answer:
                assert answer.status_code == 200, answer.status_code
                if self.run is None:
                    run_id = answer.headers["content-location"].rsplit("/", 1)[-1]
                    self.run = Accepted(thread_id, run_id)
                async for event in events_of(answer):
                    self.events.append(event)
                    count -= 1
                    if count == 0:
                        return False
                return True
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            return False

    def _request(self, thread_id: str, graph: str, given: dict[str, Any]) -> Any:
        if self.run is None:
            sent = body(graph, given, stream_resumable=True, stream_mode=["custom", "values"], durability="sync")
            return self.client.stream("POST", f"/threads/{thread_id}/runs/stream", json=sent)
        last = self.events[-1].id if self.events else "-1"
        return self.client.stream("GET", f"{self.run.path}/stream", headers={"Last-Event-ID": last})


async def whole_stream(client: httpx.AsyncClient, run: Accepted) -> list[Sent]:
    """All events of a run, read in one go."""
    async with client.stream("GET", f"{run.path}/stream", headers={"Last-Event-ID": "-1"}) as answer:
        return [event async for event in events_of(answer)]


async def events_of(answer: httpx.Response) -> AsyncGenerator[Sent]:
    """The events of an SSE answer; heartbeats are no events."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "event" in fields:
            yield Sent(fields.get("id", ""), fields["event"], orjson.loads(fields.get("data") or "null"))
        fields = {}


def assert_whole(events: list[Sent], *, steps: int, tokens: int) -> int:
    """No gap, no duplicate, no reordering; what was executed again is marked. Returns the number of attempts."""
    positions = [event.position for event in events]
    assert positions == sorted(set(positions)), "reordered or repeated"
    attempts: list[list[Sent]] = []
    for event in events:
        if event.name == "metadata":
            assert event.position[1] == 0, "an attempt begins with its metadata"
            attempts.append([])
        attempts[-1].append(event)
    numbers = [attempt[0].data["attempt"] for attempt in attempts]
    assert numbers == sorted(set(numbers))
    seen: dict[int, list[int]] = {}
    for attempt in attempts:
        assert [event.position[1] for event in attempt] == list(range(len(attempt))), "a gap within an attempt"
        first = True
        for event in attempt:
            if event.name == "custom":
                step, token = event.data["step"], event.data["token"]
                if token == 0:
                    assert first or step == max(seen, default=0) + 1, "steps of an attempt follow one another"
                    seen[step] = []
                    first = False
                seen[step].append(token)
    assert seen == {step: list(range(tokens)) for step in range(1, steps + 1)}
    assert events[-1].name == "values"
    assert events[-1].data["done"] == list(range(1, steps + 1))
    return len(attempts)
