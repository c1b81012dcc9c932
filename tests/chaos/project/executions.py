"""Counts what is executed where no rollback reaches it: lines appended to the file that CHAOS_EXECUTIONS names."""

from __future__ import annotations

import os
import time

from langchain_core.runnables import RunnableConfig


def note(config: RunnableConfig, step: int | str, what: str) -> None:
    """Append `run step attempt time what` in one write, so that lines of several processes do not mix."""
    metadata = config.get("metadata") or {}
    line = f"{metadata['run_id']} {step} {metadata['run_attempt']} {time.time():.6f} {what}\n"
    file = os.open(os.environ["CHAOS_EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
