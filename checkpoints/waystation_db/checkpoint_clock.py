"""Keeps new checkpoints after those that they follow, whatever the clocks of the machines say.

LangGraph takes the id of a checkpoint from the clock of the machine that makes it, and the greatest id for the newest
state. Where a thread goes from a fast clock to a slow one, what the slow one commits would lie in the past and never
be seen. So each process counts on from the ids it reads, as a Lamport clock does: LangGraph's generator already never
goes back behind its own last id, and here it learns of others'.
"""

from __future__ import annotations

import time
from uuid import UUID

from langgraph.checkpoint.base import id as ids

_EPOCH_TICKS = 0x01B21DD213814000  # 100 ns ticks from the epoch of UUIDs to that of Unix
_TICKS_PER_S = 10_000_000
# No clock of a server is that wrong: such an id was made up, and following it would use up the ids there are.
_BELIEVED_S = 86_400


def witness(checkpoint_id: str) -> None:
    """Make every id that this process generates from now on greater than this one. Other ids than LangGraph's change
    nothing."""
    try:
        parsed = ids.UUID(checkpoint_id)
    except ValueError:
        return
    if parsed.version != 6:
        return
    ticks = _ticks_of(parsed)
    last: int | None = getattr(ids, "_last_v6_timestamp", None)
    if ticks > (last or 0) and ticks < _now() + _BELIEVED_S * _TICKS_PER_S:
        ids._last_v6_timestamp = ticks  # pyright: ignore  # the generator has no other way to be told


def _ticks_of(checkpoint_id: UUID) -> int:
    value = checkpoint_id.int
    return (value >> 80) << 12 | (value >> 64) & 0x0FFF


def _now() -> int:
    return time.time_ns() // 100 + _EPOCH_TICKS
