"""Rate limits of models, kept by all processes together."""

from waystation_guards.rates.guard import RateLimit
from waystation_guards.rates.limiter import SharedRateLimiter
from waystation_guards.rates.rules import ModelRate

__all__ = ["ModelRate", "RateLimit", "SharedRateLimiter"]
