"""The three ports in the memory of one process."""

from waystation_guards.memory.cache import MemoryCache
from waystation_guards.memory.ledger import MemoryLedger
from waystation_guards.memory.ports import memory_ports
from waystation_guards.memory.state import MemoryState

__all__ = ["MemoryCache", "MemoryLedger", "MemoryState", "memory_ports"]
