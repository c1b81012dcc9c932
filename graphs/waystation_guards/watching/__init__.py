"""Watching every model and tool call below a config."""

from waystation_guards.watching.calls import Made, ModelCall, ToolCall
from waystation_guards.watching.watcher import Guard, Watcher, watched

__all__ = ["Guard", "Made", "ModelCall", "ToolCall", "Watcher", "watched"]
