"""The three ports in the memory of one process. Any thread and any loop may use them."""

from __future__ import annotations

from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Ports


def memory_ports() -> Ports:
    """New ports with nothing in them."""
    return Ports(MemoryLedger(), MemoryState(), MemoryCache())
