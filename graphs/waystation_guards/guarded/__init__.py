"""A whole graph under guards."""

from waystation_guards.guarded.endings import with_endings
from waystation_guards.guarded.graph import guarded

__all__ = ["guarded", "with_endings"]
