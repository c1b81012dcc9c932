"""Redaction in LangSmith's traces: inputs, outputs and metadata of runs are redacted before they leave the process.

install_redacted_tracing(Redactor())            once, before the first run; LangSmith's own settings stay as they are
"""

from __future__ import annotations

from typing import Any

from waystation_guards.redaction.redaction import DEFAULT, Redactor


def redacting_client(redactor: Redactor = DEFAULT, **options: Any) -> Any:
    """A `langsmith.Client` that redacts what it sends. `options` are the client's own."""
    from langsmith import Client  # comes with langchain-core; loaded where somebody traces

    def hide(data: dict[str, Any]) -> dict[str, Any]:
        return redactor.value(_plain(data))

    return Client(anonymizer=hide, hide_inputs=hide, hide_outputs=hide, hide_metadata=hide, **options)


def install_redacted_tracing(redactor: Redactor = DEFAULT, **options: Any) -> Any:
    """Let all tracing of this process go through a redacting client, and return it."""
    import langsmith

    client = redacting_client(redactor, **options)
    langsmith.configure(client=client)
    return client


def _plain(value: Any) -> Any:
    """Messages and other objects as JSON values: a redactor looks into nothing else."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    dump = getattr(value, "model_dump", None)
    return _plain(dump()) if callable(dump) else value
