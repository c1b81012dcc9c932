"""The graphs that the reference's transcripts were recorded with, loaded in this process."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from langgraph.pregel import Pregel

BASIC = Path(__file__).parent / "fixtures" / "basic"


@cache
def fixture_graphs() -> dict[str, Pregel[Any, Any, Any, Any]]:
    """Graph id → graph, as `fixtures/basic/langgraph.json` names them; those that need no factory or builder."""
    module = _load("graphs")
    specs: dict[str, Any] = json.loads((BASIC / "langgraph.json").read_text())["graphs"]
    found = {name: getattr(module, name) for name in specs}
    return {name: graph for name, graph in found.items() if isinstance(graph, Pregel)}


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"contract_{name}", BASIC / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BASIC))  # they import each other as a project's modules do
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BASIC))
    return module
