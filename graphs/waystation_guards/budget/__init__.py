"""Budgets: what may be spent, what it costs, and what happens at the limit."""

from waystation_guards.budget.alerts import Alert
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.degrading import degrading
from waystation_guards.budget.estimates import input_tokens
from waystation_guards.budget.forecasting import History, ModelUse, PastCall, PastRun, forecast, shortfalls
from waystation_guards.budget.limits import Limit
from waystation_guards.budget.pricing import Prices, Rates

__all__ = [
    "Alert",
    "Budget",
    "History",
    "Limit",
    "ModelUse",
    "PastCall",
    "PastRun",
    "Prices",
    "Rates",
    "degrading",
    "forecast",
    "input_tokens",
    "shortfalls",
]
