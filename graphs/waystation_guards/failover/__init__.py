"""A chat model over several targets, with breakers they share."""

from waystation_guards.failover.breakers import BreakerChange
from waystation_guards.failover.hedging import Hedge
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Backoff, Decision, FailoverPolicy, Patience
from waystation_guards.failover.targets import Target

__all__ = ["Backoff", "BreakerChange", "Decision", "FailoverModel", "FailoverPolicy", "Hedge", "Patience", "Target"]
