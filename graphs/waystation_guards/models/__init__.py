"""Chat models that stand in front of others."""

from waystation_guards.models.passing import PassingModel

__all__ = ["PassingModel"]
