"""The worker: claims runs, executes them on the graph loop, and writes down what became of them."""

from waystation.worker.cron_clock import CronClock
from waystation.worker.upkeep import Upkeep
from waystation.worker.webhook_sender import WebhookSender
from waystation.worker.worker import Worker

__all__ = ["CronClock", "Upkeep", "WebhookSender", "Worker"]
