"""Contexts and models no larger than a call needs."""

from waystation_guards.context.routed_model import RoutedModel
from waystation_guards.context.routing import RoutingRules
from waystation_guards.context.thrift import Thrift, prune
from waystation_guards.context.thrifty_model import ThriftyModel

__all__ = ["RoutedModel", "RoutingRules", "Thrift", "ThriftyModel", "prune"]
