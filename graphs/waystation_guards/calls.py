"""Whose a model or tool call is: the tenant, thread, run, attempt and node it is made in.

    site = site_of(config)        in a node, in middleware, in a callback: from the config that LangGraph passes along

A gateway in front of the provider cannot know any of this. Without a server the ids are what the program puts into
`configurable`; everything has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config

PORTS_KEY = "__waystation_guards"
"""The member of `configurable` in which a server hands in its ports and the caller's tenant, or a function that makes
them when a guard first asks."""

WRAPPER: Final = "waystation-guards-"
"""What `_llm_type` of a model begins with that only passes calls on to others. Watchers are asked about the calls
of those others and not about its own: a call costs once."""

_MODEL_NAMES: Final = ("model", "model_name", "model_id", "deployment_name")


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where a call happens. Ids are empty where the program has none."""

    tenant: str = "default"
    thread: str = ""
    run: str = ""
    attempt: int = 1
    assistant: str = ""
    graph: str = ""
    user: str = ""
    key: str = ""
    roles: tuple[str, ...] = ()
    node: str = ""
    namespace: str = ""


def current_config() -> RunnableConfig | None:
    """The config of the running node; None outside of a graph."""
    try:
        return get_config()
    except RuntimeError:
        return None


def site_of(config: RunnableConfig | None) -> CallSite:
    """The call site that a config describes."""
    given: Mapping[str, Any] = config or {}
    configurable = _member(given, "configurable")
    metadata = _member(given, "metadata")
    server = handed_in(configurable)
    return CallSite(
        tenant=str(getattr(server, "tenant", None) or configurable.get("tenant_id") or "default"),
        thread=_text(configurable, "thread_id"),
        run=_text(configurable, "run_id") or _text(metadata, "run_id"),
        attempt=int(metadata.get("run_attempt") or 1),
        assistant=_text(configurable, "assistant_id"),
        graph=_text(configurable, "graph_id"),
        user=_text(configurable, "langgraph_auth_user_id") or _text(configurable, "user_id"),
        key=str(getattr(server, "key", "") or ""),
        roles=tuple(configurable.get("langgraph_auth_permissions") or ()),
        node=_text(metadata, "langgraph_node"),
        namespace=_text(metadata, "langgraph_checkpoint_ns"),
    )


def model_named(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """What a model calls itself, by the `invocation_params` and the metadata that callbacks are told of its call;
    empty where it says nothing."""
    named = next((str(params[name]) for name in _MODEL_NAMES if params.get(name)), "")
    return named or str(metadata.get("ls_model_name") or params.get("_type") or "")


def handed_in(configurable: Mapping[str, Any]) -> Any:
    """What a server handed in under `PORTS_KEY`; None without a server."""
    server = configurable.get(PORTS_KEY)
    return server() if callable(server) else server


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value.get(name) or {})


def _text(value: Mapping[str, Any], name: str) -> str:
    return str(value.get(name) or "")
