"""The drawing of a graph, as clients show it: its nodes and the edges between them."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.runnables import RunnableConfig

from waystation.catalog.factories import Graph


async def draw(
    graph: Graph, *, xray: bool | int = False, config: RunnableConfig | None = None
) -> dict[str, list[dict[str, Any]]]:
    """`{"nodes": […], "edges": […]}`. With `xray` subgraphs are drawn in place, as deep as the number says."""
    drawn = (await graph.aget_graph(config, xray=xray)).to_json()
    for node in drawn["nodes"]:
        if isinstance(data := node.get("data"), dict):
            cast(dict[str, Any], data).pop("id", None)  # the Python class of the node: nobody's business
    return {"nodes": drawn["nodes"], "edges": drawn["edges"]}
