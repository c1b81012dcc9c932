"""A run as a tree: the graph and its subgraphs, each with how far it got, as the run's stored events tell."""

from __future__ import annotations

from typing import Any, Final

import orjson

from waystation.auth import ANYTHING, Principal
from waystation.events import BEGINNING
from waystation.events.postgres import ChunkReader
from waystation.events.protocol import PROTOCOL_MODE, Namespace, split_name
from waystation.runs.permission import visible_thread
from waystation.services import Services
from waystation_db import thread_events
from waystation_db.thread_events import RunSpan

_ROOT_STATUS: Final = {
    "pending": "started",
    "running": "running",
    "error": "failed",
    "timeout": "failed",
    "interrupted": "interrupted",
}

Node = dict[str, Any]


async def agent_tree(services: Services, caller: Principal, *, thread_id: str, run_id: str | None) -> Node | None:
    """The tree of the thread's newest run, or of the run of an id; None if there is no such run that began."""
    visible = await visible_thread(caller, "read", thread_id) or ANYTHING
    async with services.db.connection() as conn:
        span = await thread_events.newest_span(conn, caller.tenant_id, thread_id, run_id=run_id, visible=visible)
    if span is None:
        return None
    root: Node = {"namespace": [], "status": _status_of(span), "graph_name": span.graph_id}
    nodes: dict[Namespace, Node] = {(): root}
    if span.is_native:
        for namespace, data in await _lifecycle(services, span):
            _place(nodes, namespace, data)
    return root


def _status_of(span: RunSpan) -> str:
    if span.status == "success":
        return "interrupted" if span.asked else "completed"
    return _ROOT_STATUS[span.status]


async def _lifecycle(services: Services, span: RunSpan) -> list[tuple[Namespace, dict[str, Any]]]:
    """What the run's subgraphs told, in order."""
    reader, position = ChunkReader(services.db), BEGINNING
    found: list[tuple[Namespace, dict[str, Any]]] = []
    while stored := (await reader.read(span.key, position)).events:
        for event in stored:
            channel, namespace = split_name(event.name)
            if event.mode == PROTOCOL_MODE and channel == "lifecycle" and namespace:
                found.append((namespace, orjson.loads(event.data)["params"]["data"]))
        position = stored[-1].id
    return found


def _place(nodes: dict[Namespace, Node], namespace: Namespace, data: dict[str, Any]) -> None:
    node = nodes.get(namespace)
    if node is None:
        name = data.get("graph_name") or namespace[-1].partition(":")[0]
        node = nodes[namespace] = {"namespace": list(namespace), "status": "started", "graph_name": name}
        above = next(nodes[namespace[:n]] for n in range(len(namespace) - 1, -1, -1) if namespace[:n] in nodes)
        above.setdefault("children", []).append(node)
    node["status"] = data["event"]
