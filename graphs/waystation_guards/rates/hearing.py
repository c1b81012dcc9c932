"""Hears what a provider's answers report where LangChain's model does not pass their headers on.

`ChatOpenAI(include_response_headers=True)` puts them into each answer's `response_metadata`; `ChatAnthropic` has
nothing of the kind. Both have an HTTP client of httpx inside, which tells of every answer.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

_MANY: Final = 1000
_SDK_CLIENTS: Final = ("_client", "_async_client", "root_client", "root_async_client")
"""Where `langchain-anthropic` 1.7 and `langchain-openai` 1.7 keep the clients of the providers' SDKs."""


class _Answer(Protocol):
    """What is used of an `httpx.Response`."""

    headers: Mapping[str, str]
    request: Any


class Hearing:
    """The newest headers by the model that was asked for. Any thread may tell and ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest = OrderedDict[str, Mapping[str, str]]()

    def attend(self, model: object) -> bool:
        """Hear the answers to a LangChain model's HTTP clients. False if it has none that are known here.

        LangChain's models share clients of the same address; each is heard once.
        """
        clients = [_http_client(model, name) for name in _SDK_CLIENTS]
        found = [client for client in clients if client is not None]
        for client in found:
            hooks: list[Any] = client.event_hooks["response"]
            hook = self._ahear if hasattr(client, "aclose") else self._hear
            if hook not in hooks:
                client.event_hooks = {**client.event_hooks, "response": [*hooks, hook]}
        return bool(found)

    def take(self, model: str) -> Mapping[str, str]:
        """The headers of the newest answer of a model, once; empty where there is nothing new."""
        with self._lock:
            return self._newest.pop(model, {})

    def _hear(self, answer: _Answer) -> None:
        model = _model_of(answer)
        if not model:
            return
        with self._lock:
            self._newest[model] = dict(answer.headers)
            self._newest.move_to_end(model)
            if len(self._newest) > _MANY:
                self._newest.popitem(last=False)

    async def _ahear(self, answer: _Answer) -> None:
        self._hear(answer)


def _http_client(model: object, name: str) -> Any | None:
    client = getattr(getattr(model, name, None), "_client", None)
    return client if hasattr(client, "event_hooks") else None


def _model_of(answer: _Answer) -> str:
    """The model that a request's body names."""
    try:
        body: Any = json.loads(answer.request.content)
    except Exception:  # a request without a body of JSON is nobody's model call
        return ""
    named = cast("dict[str, Any]", body).get("model") if isinstance(body, dict) else None
    return named if isinstance(named, str) else ""
