"""Screening of texts for prompt injection."""

from waystation_guards.screening.guard import ScreenedRetriever, ScreenGuard, screened, screened_documents
from waystation_guards.screening.judge import Judge
from waystation_guards.screening.rules import Rule
from waystation_guards.screening.screening import Screening, ScreenSettings

__all__ = [
    "Judge",
    "Rule",
    "ScreenGuard",
    "ScreenSettings",
    "ScreenedRetriever",
    "Screening",
    "screened",
    "screened_documents",
]
