"""Schemas and drawings of the contract's graphs are those that the reference was recorded with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from integration.catalog_projects import BASIC, clean_imports, load, project
from waystation.catalog import Catalog, draw, schemas, subgraph_schemas

pytestmark = pytest.mark.anyio

TRANSCRIPT = BASIC.parents[1] / "transcripts" / "02-assistants.jsonl"
NO_CONFIG: RunnableConfig = {}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Step → the body that the reference answered."""
    steps = [json.loads(line) for line in TRANSCRIPT.read_text(encoding="utf-8").splitlines()]
    return {step["step"]: step["response"].get("body") for step in steps if "response" in step}


@pytest.fixture
async def catalog() -> AsyncIterator[Catalog]:
    with clean_imports():
        loaded = await load(BASIC)
        yield loaded
        await loaded.close()


def better_than_recorded(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal, but for input and output: the reference left these null where the library refuses `typing.TypedDict`."""
    assert list(ours) == [key for key in theirs if key != "graph_id"]
    for key in ("state_schema", "config_schema", "context_schema"):
        assert ours[key] == theirs[key]
    for key in ("input_schema", "output_schema"):
        assert theirs[key] is None
        assert ours[key]["type"] == "object"
        assert list(ours[key]["properties"]) == list(theirs["state_schema"]["properties"])


@pytest.mark.parametrize(
    ("graph_id", "step"), [("chat", "schemas: a graph of messages"), ("factory_config", "schemas: a factory")]
)
async def test_schemas_are_as_recorded(catalog: Catalog, recorded: dict[str, Any], graph_id: str, step: str) -> None:
    async with catalog.open(graph_id, access="assistants.read", config=NO_CONFIG) as graph:
        better_than_recorded(await schemas(graph), recorded[step])


async def test_a_context_schema_describes_the_config_too(catalog: Catalog) -> None:
    async with catalog.open("echo", access="assistants.read", config=NO_CONFIG) as graph:
        made = await schemas(graph)
    assert made["context_schema"] is not None
    assert made["context_schema"]["properties"]["temperature"] == {"title": "Temperature", "type": "number"}
    assert made["config_schema"] == made["context_schema"]
    assert made["state_schema"] is not None, "the reference answered 500 here"


@pytest.mark.parametrize(
    ("step", "namespace", "recurse"),
    [
        ("subgraphs", None, False),
        ("subgraphs: recurse", None, True),
        ("subgraphs: by namespace", "child", False),
        ("subgraphs: deep namespace", "child|grandchild", True),
        ("subgraphs: unknown namespace", "nobody", False),
    ],
)
async def test_subgraphs_are_as_recorded(
    catalog: Catalog, recorded: dict[str, Any], step: str, namespace: str | None, recurse: bool
) -> None:
    async with catalog.open("nested", access="assistants.read", config=NO_CONFIG) as graph:
        made = await subgraph_schemas(graph, namespace=namespace, recurse=recurse)
    assert list(made) == list(recorded[step])
    for name, ours in made.items():
        better_than_recorded(ours, recorded[step][name])


@pytest.mark.parametrize(("step", "xray"), [("graph", False), ("graph: xray", True), ("graph: xray=1", 1)])
async def test_drawings_are_as_recorded(
    catalog: Catalog, recorded: dict[str, Any], step: str, xray: bool | int
) -> None:
    async with catalog.open("nested", access="assistants.read", config=NO_CONFIG) as graph:
        assert await draw(graph, xray=xray) == recorded[step]


async def test_conditional_edges_are_drawn_as_such(catalog: Catalog) -> None:
    async with catalog.open("slow", access="assistants.read", config=NO_CONFIG) as graph:
        drawn = await draw(graph)
    assert {"source": "tick", "target": "tick", "conditional": True} in drawn["edges"]


ODD = """
from __future__ import annotations
import socket
from dataclasses import dataclass, field
from typing import Annotated, Any, List, Optional, TypedDict
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel
from typing_extensions import NotRequired

class Inner(TypedDict):
    b: int

class Nested(TypedDict):
    inner: List[Inner]
    perhaps: Optional[Inner]
    either: int | Inner
    noted: Annotated[dict[str, Inner], "note"]
    left_out: NotRequired[int]

class Awkward(TypedDict):
    _private: int
    copy: str
    model_config: str

class Hostile(TypedDict):
    good: int
    bad: socket.socket

class Again(TypedDict, total=False):
    again: Again

class Model(BaseModel):
    n: int = 1

def make(schema):
    return StateGraph(schema).add_node("x", lambda s: {}).add_edge(START, "x").add_edge("x", END)

nested, awkward, hostile, again, model = map(make, (Nested, Awkward, Hostile, Again, Model))

@entrypoint()
def functional(value: int) -> str:
    return str(value)
"""


@pytest.fixture
async def odd(tmp_path: Path) -> AsyncIterator[Catalog]:
    names = ("nested", "awkward", "hostile", "again", "model", "functional")
    with clean_imports():
        loaded = await load(project(tmp_path, {"g.py": ODD}, **{name: f"./g.py:{name}" for name in names}))
        yield loaded
        await loaded.close()


async def schemas_of(catalog: Catalog, graph_id: str) -> dict[str, Any]:
    async with catalog.open(graph_id, access="assistants.read", config=NO_CONFIG) as graph:
        return await schemas(graph)


async def test_typed_dicts_within_typed_dicts_are_described_on_every_python(odd: Catalog) -> None:
    schema = (await schemas_of(odd, "nested"))["input_schema"]
    ref = {"$ref": "#/$defs/Inner"}
    assert schema["$defs"]["Inner"]["required"] == ["b"]
    assert schema["required"] == ["inner", "perhaps", "either", "noted"]
    assert schema["properties"]["inner"]["items"] == ref
    assert schema["properties"]["perhaps"]["anyOf"] == [ref, {"type": "null"}]
    assert schema["properties"]["either"]["anyOf"] == [{"type": "integer"}, ref]
    assert schema["properties"]["noted"]["additionalProperties"] == ref


async def test_channels_may_have_names_that_pydantic_keeps_for_itself(odd: Catalog) -> None:
    schema = (await schemas_of(odd, "awkward"))["state_schema"]
    assert list(schema["properties"]) == ["_private", "copy", "model_config"]


async def test_a_schema_that_cannot_be_made_is_null(odd: Catalog) -> None:
    schema = await schemas_of(odd, "hostile")
    assert (schema["input_schema"], schema["state_schema"], schema["config_schema"]) == (None, None, {})


async def test_a_state_that_contains_itself_does_not_hang(odd: Catalog) -> None:
    assert set(await schemas_of(odd, "again")) >= {"input_schema", "state_schema"}


async def test_models_and_functions_are_described(odd: Catalog) -> None:
    assert (await schemas_of(odd, "model"))["input_schema"]["properties"]["n"]["default"] == 1
    functional = await schemas_of(odd, "functional")
    assert (functional["input_schema"]["type"], functional["output_schema"]["type"]) == ("integer", "string")
