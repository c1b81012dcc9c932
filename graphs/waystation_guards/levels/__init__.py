"""Degradation levels: how much of a service is offered."""

from waystation_guards.levels.answers import Faq, RememberedAnswers
from waystation_guards.levels.levels import (
    Degradation,
    LevelPolicy,
    Rule,
    at_level,
    clear_level,
    current_level,
    set_level,
)
from waystation_guards.levels.nodes import answer_node, by_level, level_node
from waystation_guards.levels.signals import breakers_open, budget_spent, share, shared

__all__ = [
    "Degradation",
    "Faq",
    "LevelPolicy",
    "RememberedAnswers",
    "Rule",
    "answer_node",
    "at_level",
    "breakers_open",
    "budget_spent",
    "by_level",
    "clear_level",
    "current_level",
    "level_node",
    "set_level",
    "share",
    "shared",
]
