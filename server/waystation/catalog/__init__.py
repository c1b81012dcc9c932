"""Finds, loads and describes graphs: `langgraph.json`, the user's code, and what a client may know of it."""

from waystation.catalog.catalog import Catalog, default_assistant_id
from waystation.catalog.drawing import draw
from waystation.catalog.embedding import store_index
from waystation.catalog.factories import Graph
from waystation.catalog.project import Project, configure, project_from_settings, read_project
from waystation.catalog.schemas import schemas, subgraph_schemas

__all__ = [
    "Catalog",
    "Graph",
    "Project",
    "configure",
    "default_assistant_id",
    "draw",
    "project_from_settings",
    "read_project",
    "schemas",
    "store_index",
    "subgraph_schemas",
]
