"""The only package that reads the environment."""

from waystation.config.environment import (
    INEFFECTIVE,
    NEEDLESS,
    export_environment,
    ineffective_variables,
    process_environment,
)
from waystation.config.settings import Settings, settings_environment

__all__ = [
    "INEFFECTIVE",
    "NEEDLESS",
    "Settings",
    "export_environment",
    "ineffective_variables",
    "process_environment",
    "settings_environment",
]
