"""What a process is made of: its resources, made in one place and passed in everywhere else."""

from waystation.services.graph_host import GraphHost, GraphSide
from waystation.services.resources import Services

__all__ = ["GraphHost", "GraphSide", "Services"]
