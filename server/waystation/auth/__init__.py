"""Who calls, and what they may."""

from waystation.auth.principal import ANONYMOUS, Principal

__all__ = ["ANONYMOUS", "Principal"]
