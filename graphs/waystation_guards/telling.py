"""Tells what guards do to the graph's stream: `stream_mode="custom"` carries `{"guard": …, …}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.config import get_stream_writer


def tell(guard: str, event: Mapping[str, Any]) -> None:
    """Write an event to the stream of the running node; nowhere outside of a graph."""
    try:
        write = get_stream_writer()
    except (RuntimeError, KeyError):
        return
    write({"guard": guard, **event})
