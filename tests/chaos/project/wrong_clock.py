"""Moves this process's clock by CHAOS_CLOCK_OFFSET_S, as far as Python code asks for it."""

from __future__ import annotations

import os
import time

_OFFSET_S = int(os.environ.get("CHAOS_CLOCK_OFFSET_S", "0"))

if _OFFSET_S:
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _OFFSET_S
    time.time_ns = lambda: _time_ns() + _OFFSET_S * 1_000_000_000
