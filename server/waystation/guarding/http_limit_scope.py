"""What the limits of requests keep in a request's scope. Loaded by every server; the limits are not."""

from __future__ import annotations

from typing import Final

LIMITED: Final = "waystation.limits"
"""The headers that the answer has to carry."""

INSIDE: Final = "waystation.inside"
"""Marks requests that graphs make of their own process: those who started them have been counted."""
