"""The tracing of a process: OpenTelemetry as OTEL_* says, and LangSmith as its own variables say."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import structlog

import waystation
from waystation.catalog import Project
from waystation.config import Settings, process_environment
from waystation.errors import ConfigError
from waystation.telemetry.tracing import Redact, Tracing, exporters_of, open_tracing

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def tracing_of(settings: Settings, project: Project) -> Generator[Tracing | None]:
    """Tracing until the block is left; None where nobody asks for it.

    Raises:
        ConfigError: OTEL_TRACES_EXPORTER names what there is not.
    """
    environ = {**project.env, **process_environment()}
    _configure_langsmith(settings, environ)
    try:
        tracing = open_tracing(
            exporters=exporters_of(environ),
            version=waystation.__version__,
            content=settings.trace_content,
            redact=_redact(settings),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()


def _redact(settings: Settings) -> Redact | None:
    if not settings.trace_redact:
        return None
    from waystation_guards.redaction import Redactor  # compiles its patterns: for those who want it

    return Redactor(kinds=settings.trace_redact).text


def _configure_langsmith(settings: Settings, environ: Mapping[str, str]) -> None:
    """LangSmith is LangChain's business, with two exceptions: without a key nothing is sent to its cloud, which would
    refuse it, run after run; and what is to be redacted in traces is so there, too."""
    if not _is_on(environ):
        return
    keys = ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT")
    if not any(environ.get(name, "").strip() for name in (*keys, "LANGSMITH_RUNS_ENDPOINTS")):
        import langsmith

        langsmith.configure(enabled=False)
        log.warning("LANGSMITH_TRACING is set, but LANGSMITH_API_KEY is not: nothing is traced there")
    elif settings.trace_redact:
        from waystation_guards.redaction import Redactor, install_redacted_tracing

        install_redacted_tracing(Redactor(kinds=settings.trace_redact))


def _is_on(environ: Mapping[str, str]) -> bool:
    names = ("LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING", "LANGCHAIN_TRACING")
    return any(environ.get(name, "").strip().lower() == "true" for name in names)
