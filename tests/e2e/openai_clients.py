"""OpenAI's own clients on a live server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai

from live_server import LiveServer

CHAT = Path(__file__).parents[1] / "fixtures" / "projects" / "chat"
"""Graphs to chat with."""


def async_client(server: LiveServer, **options: Any) -> openai.AsyncOpenAI:
    """Makes each request once: what goes wrong shall show."""
    given: dict[str, Any] = {"api_key": "any", **options}
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", max_retries=0, **given)


def sync_client(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def user(text: Any) -> Any:
    """A message of the user's."""
    return {"role": "user", "content": text}
