"""Which tools may be called by whom, with which arguments."""

from waystation_guards.permissions.arguments import ArgumentRule
from waystation_guards.permissions.node import PermittedToolNode
from waystation_guards.permissions.permissions import Permissions, ToolGuard, ToolRule, permissions_of

__all__ = ["ArgumentRule", "Permissions", "PermittedToolNode", "ToolGuard", "ToolRule", "permissions_of"]
