"""Personal and secret things taken out of texts."""

from waystation_guards.redaction.logs import RedactLogs
from waystation_guards.redaction.redaction import Redactor
from waystation_guards.redaction.traces import install_redacted_tracing

__all__ = ["RedactLogs", "Redactor", "install_redacted_tracing"]
