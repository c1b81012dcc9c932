"""The process's environment, where others than the settings need it; the platform's variables that do nothing here."""

from __future__ import annotations

import os
from collections.abc import Mapping


def export_environment(variables: Mapping[str, str]) -> None:
    """Put a project's `env` into this process's environment, for graphs to read. What is already set wins."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


INEFFECTIVE: Mapping[str, str] = {
    "REDIS_CLUSTER": "one Redis address is used as it is; all keys of a run share a hash tag",
    "REDIS_MAX_CONNECTIONS": "a process holds a handful of connections, however many clients read",
}
"""Variables of the platform that ask for something that is not done here, and why: warned about."""

NEEDLESS: Mapping[str, str] = {
    "BG_JOB_ISOLATED_LOOPS": "Graphs never run on the API's event loop.",
    "LANGGRAPH_CLOUD_LICENSE_KEY": "There is no licence to check.",
    "LANGSMITH_API_KEY": "Read by LangChain's tracing client, as `LANGSMITH_TRACING` and `LANGSMITH_ENDPOINT` are.",
    "LANGSMITH_ENDPOINT": "Read by the tracing client.",
    "LANGSMITH_TRACING": "Read by the tracing client.",
    "LANGCHAIN_TRACING_SAMPLING_RATE": "Read by the tracing client.",
    "DD_API_KEY": "Read, with the other `DD_*`, by `ddtrace` where you start the server with it.",
    "LS_OTEL_INSTRUMENT": "OpenTelemetry is switched on by `OTEL_*`.",
}
"""Variables of the platform that the server has no need to read, and why."""


def ineffective_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable that is set and asks for something that is not done here."""
    environ = os.environ if environ is None else environ
    off = ("", "0", "false")
    return [
        f"{name} has no effect: {why}" for name, why in INEFFECTIVE.items() if environ.get(name, "").lower() not in off
    ]


def process_environment() -> Mapping[str, str]:
    """The environment of this process, for those that must look a user's variable up by name (webhook headers)."""
    return os.environ
