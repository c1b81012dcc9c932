"""Who calls, and what they may."""

from waystation.auth.principal import ANONYMOUS, ANYTHING, Principal, Resource, Rules

__all__ = ["ANONYMOUS", "ANYTHING", "Principal", "Resource", "Rules"]
