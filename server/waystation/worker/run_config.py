"""What the graph sees of a run: config, context and input, merged from assistant, thread, run and server.

Later wins: assistant, thread, ids, run, server keys. The merged metadata comes ready from the run's row.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

import waystation
from waystation.auth import User
from waystation.runs.commands import to_command
from waystation.runs.requests import STRICT_RESUME, CommandBody
from waystation_db.rows import ClaimedRun

_LANGGRAPH_VERSION = version("langgraph")

_CHECKPOINTER = "__pregel_checkpointer"
"""LangGraph's key for a checkpointer that comes with the config instead of being compiled in."""

_STRICT_RESUME = "__pregel_strict_resume"
"""LangGraph's key for failing on an answer to an interrupt that does not wait."""

SERVER_KEYS = (
    "langgraph_auth_user",
    "langgraph_auth_user_id",
    "langgraph_auth_permissions",
    "langgraph_request_id",
    "run_id",
    "thread_id",
    "graph_id",
    "assistant_id",
    "user_id",
)


def graph_config(run: ClaimedRun, *, saver: BaseCheckpointSaver[str], at_head: bool = False) -> RunnableConfig:
    """The RunnableConfig of an attempt. A client cannot overwrite the server's keys.

    `at_head`: begin at the thread's newest checkpoint, whichever one the client named.
    """
    asked, mine = _member(run.kwargs, "config"), run.assistant_config
    configurable: dict[str, Any] = {
        **_member(mine, "configurable"),
        **run.assistant_context,
        **_member(asked, "configurable"),
        **({} if at_head else _member(run.kwargs, "checkpoint")),
        "run_id": run.key.run_id,
        "thread_id": run.key.thread_id,
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        _CHECKPOINTER: saver,
        **({_STRICT_RESUME: True} if run.kwargs.get(STRICT_RESUME) else {}),
    }
    if (user := configurable.get("langgraph_auth_user")) is not None:
        configurable["langgraph_auth_user"] = User(user)
    config: dict[str, Any] = {
        "configurable": configurable,
        "metadata": {**run.metadata, **server_metadata(run)},
        "run_id": run.key.run_id,
    }
    for name in ("tags", "recursion_limit", "max_concurrency", "run_name"):
        value = asked.get(name) or mine.get(name)
        if value:
            config[name] = value
    return cast("RunnableConfig", config)


def server_metadata(run: ClaimedRun) -> dict[str, Any]:
    """The metadata keys that the server adds to a run's own."""
    user_id = _member(_member(run.kwargs, "config"), "configurable").get("user_id")
    return {
        **({"user_id": user_id} if user_id else {}),
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        "run_id": run.key.run_id,
        "thread_id": run.key.thread_id,
        "run_attempt": run.attempt,
        "langgraph_version": _LANGGRAPH_VERSION,
        "langgraph_api_version": waystation.__version__,
        "langgraph_plan": "open-source",
        "langgraph_host": "self-hosted",
    }


def graph_context(run: ClaimedRun) -> dict[str, Any] | None:
    """The run's context: the assistant's and the run's own members; None when there are none."""
    mine = {**_member(run.assistant_config, "configurable"), **run.assistant_context}
    return {**mine, **_member(run.kwargs, "context")} or None


def graph_input(run: ClaimedRun) -> Any:
    """The input of an attempt: the command if there is one, else the input; None goes on from the checkpoint."""
    command = run.kwargs.get("command")
    if command:
        return to_command(CommandBody.model_validate(command))
    return None if command is not None else run.kwargs.get("input")


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside an object; empty where it is missing or null."""
    found: dict[str, Any] | None = value.get(name)
    return found or {}
