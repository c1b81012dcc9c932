"""The event log: what a run's writer appends and every reader reads, whatever keeps it in between."""

from waystation.events.log import BEGINNING, ONLY_END, End, Event, EventId, EventLog, ThreadWatch
from waystation.events.memory import MemoryStore
from waystation.events.routed import RoutedLog, in_memory, in_process, over_postgres, over_redis

__all__ = [
    "BEGINNING",
    "ONLY_END",
    "End",
    "Event",
    "EventId",
    "EventLog",
    "MemoryStore",
    "RoutedLog",
    "ThreadWatch",
    "in_memory",
    "in_process",
    "over_postgres",
    "over_redis",
]
