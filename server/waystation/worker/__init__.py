"""The worker: claims runs, executes them on the graph loop, and writes down what became of them."""

from waystation.worker.upkeep import Upkeep
from waystation.worker.worker import Worker

__all__ = ["Upkeep", "Worker"]
