"""Limits of inputs, outputs, steps and fan-out."""

from waystation_guards.caps.caps import CapGuard, Caps, capped, capped_sends
from waystation_guards.caps.schema import CheckedModel, OutputCheck

__all__ = ["CapGuard", "Caps", "CheckedModel", "OutputCheck", "capped", "capped_sends"]
