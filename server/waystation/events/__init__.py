"""The event log: what a run's writer appends and every reader reads, whatever keeps it in between."""

from waystation.events.log import BEGINNING, End, Event, EventId, EventLog

__all__ = ["BEGINNING", "End", "Event", "EventId", "EventLog"]
