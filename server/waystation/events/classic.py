"""A native run's log as the classic streams show it, for those who join such a run the older way.

States, updates and what nodes wrote are there in both; messages and tools have no older form that a client could
assemble, and are left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

import orjson

from waystation.events.log import End, Event
from waystation.events.protocol import PROTOCOL_MODE, split_name

_SHARED: Final = frozenset({"values", "updates", "custom"})


async def classic(source: AsyncGenerator[Sequence[Event] | End], run_id: str) -> AsyncGenerator[Sequence[Event] | End]:
    """What reading a run gives, a native run's events in their classic form. Other runs' pass as they are."""
    async with aclosing(source):
        async for batch in source:
            if isinstance(batch, End) or not batch or batch[0].mode != PROTOCOL_MODE:
                yield batch
            elif shown := list(classic_events(batch, run_id)):
                yield shown


def classic_events(events: Sequence[Event], run_id: str) -> Iterator[Event]:
    """Those of a run's events that the classic streams have."""
    for event in events:
        if event.mode != PROTOCOL_MODE:
            yield event
            continue
        channel, namespace = split_name(event.name)
        if channel in _SHARED:
            yield event._replace(data=orjson.dumps(_data(event)), mode=channel)
        elif channel == "lifecycle" and not namespace:
            begun = {"run_id": run_id, "attempt": _data(event).get("attempt", 1)}
            yield Event(event.id, "metadata", orjson.dumps(begun), "metadata")


def _data(event: Event) -> Any:
    return orjson.loads(event.data)["params"]["data"]
