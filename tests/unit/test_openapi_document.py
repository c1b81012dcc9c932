"""The OpenAPI document: valid, complete, and with names that last."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jsonschema_rs
import openapi_spec_validator
import pytest

from waystation.api.openapi import describe_api
from waystation.app import is_served, operations
from waystation.catalog.keys_own import OwnHttpKeys

DOCUMENT = describe_api(operations())
EVERY = [(method.upper(), path, spec) for path, item in DOCUMENT["paths"].items() for method, spec in item.items()]
UNDESCRIBED = {("GET", "/docs"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("POST", "/mcp")}
"""Operations of the protocol that the document need not describe: pages for people, and MCP's own transport."""

T, R = "/threads/{thread_id}", "/threads/{thread_id}/runs/{run_id}"
PROTOCOL = {
    ("POST", "/assistants"): {200, 404, 409, 422},
    ("POST", "/assistants/search"): {200, 422},
    ("POST", "/assistants/count"): {200, 422},
    ("GET", "/assistants/{assistant_id}"): {200, 404, 422},
    ("PATCH", "/assistants/{assistant_id}"): {200, 404, 422},
    ("DELETE", "/assistants/{assistant_id}"): {204, 404, 422},
    ("GET", "/assistants/{assistant_id}/graph"): {200, 404, 422},
    ("GET", "/assistants/{assistant_id}/subgraphs"): {200, 404, 422},
    ("GET", "/assistants/{assistant_id}/subgraphs/{namespace}"): {200, 404, 422},
    ("GET", "/assistants/{assistant_id}/schemas"): {200, 404, 422},
    ("POST", "/assistants/{assistant_id}/versions"): {200, 404, 422},
    ("POST", "/assistants/{assistant_id}/latest"): {200, 404, 422},
    ("POST", "/threads"): {200, 409, 422},
    ("POST", "/threads/search"): {200, 422},
    ("POST", "/threads/count"): {200, 422},
    ("POST", "/threads/prune"): {200, 422},
    ("GET", T): {200, 404, 422},
    ("PATCH", T): {200, 404, 422},
    ("DELETE", T): {204, 404, 422},
    ("POST", f"{T}/copy"): {200, 409, 422},
    ("GET", f"{T}/storage"): {200, 404, 422},
    ("GET", f"{T}/state"): {200, 404, 422},
    ("POST", f"{T}/state"): {200, 400, 404, 409, 422},
    ("GET", f"{T}/state/{{checkpoint_id}}"): {200, 404, 422},
    ("POST", f"{T}/state/checkpoint"): {200, 404, 422},
    ("GET", f"{T}/history"): {200, 404, 422},
    ("POST", f"{T}/history"): {200, 404, 422},
    ("GET", f"{T}/stream"): {200, 422},
    ("POST", f"{T}/stream/events"): {200, 422},
    ("POST", f"{T}/commands"): {200, 422},
    ("GET", f"{T}/runs"): {200, 404, 422},
    ("POST", f"{T}/runs"): {200, 400, 404, 409, 422},
    ("POST", f"{T}/runs/stream"): {200, 400, 404, 409, 422},
    ("POST", f"{T}/runs/wait"): {200, 400, 404, 409, 422},
    ("GET", R): {200, 404, 422},
    ("DELETE", R): {204, 404, 422},
    ("GET", f"{R}/join"): {200, 422},
    ("GET", f"{R}/stream"): {200, 422},
    ("POST", f"{R}/cancel"): {200, 202, 404, 422},
    ("POST", "/runs/cancel"): {204, 404, 422},
    ("POST", "/runs"): {200, 400, 404, 422},
    ("POST", "/runs/stream"): {200, 400, 404, 422},
    ("POST", "/runs/wait"): {200, 400, 404, 422},
    ("POST", "/runs/batch"): {200, 400, 404, 422},
    ("POST", f"{T}/runs/crons"): {200, 404, 422},
    ("POST", "/runs/crons"): {200, 404, 422},
    ("POST", "/runs/crons/search"): {200, 422},
    ("POST", "/runs/crons/count"): {200, 422},
    ("GET", "/runs/crons/{cron_id}"): {200, 404, 422},
    ("PATCH", "/runs/crons/{cron_id}"): {200, 404, 422},
    ("DELETE", "/runs/crons/{cron_id}"): {204, 404, 422},
    ("PUT", "/store/items"): {204, 400, 422},
    ("GET", "/store/items"): {200, 400, 422},
    ("DELETE", "/store/items"): {204, 422},
    ("POST", "/store/items/search"): {200, 422},
    ("POST", "/store/namespaces"): {200, 422},
    ("POST", "/mcp"): set[int](),
    ("GET", "/mcp"): set[int](),
    ("DELETE", "/mcp"): set[int](),
    ("POST", "/a2a/{assistant_id}"): {200},
    ("GET", "/ok"): {200},
    ("GET", "/info"): {200},
    ("GET", "/metrics"): {200},
    ("GET", "/docs"): set[int](),
}
"""The operations of the platform's protocol, with the statuses that it says they answer with."""


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(DOCUMENT)


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one(name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(schema)


def test_every_operation_of_the_protocol_is_there_with_its_statuses() -> None:
    assert len(PROTOCOL) == 64
    served = {(method, operation.path) for operation in operations() for method in operation.methods or ()}
    described = {(method, path): {int(status) for status in spec["responses"]} for method, path, spec in EVERY}
    assert PROTOCOL.keys() - served - UNDESCRIBED == set()
    lacking = {str(key): wanted - described.get(key, set()) for key, wanted in PROTOCOL.items()}
    assert {key: missing for key, missing in lacking.items() if missing} == {}


def test_operations_have_names_of_their_own_for_generated_clients() -> None:
    names = Counter(spec["operationId"] for _, _, spec in EVERY)
    assert [name for name, times in names.items() if times > 1] == []
    assert all(name.isidentifier() and name.islower() and "__" not in name for name in names)


@pytest.mark.parametrize(("method", "path", "spec"), EVERY, ids=[f"{method} {path}" for method, path, _ in EVERY])
def test_an_operation_says_what_it_is_and_what_it_answers(method: str, path: str, spec: dict[str, Any]) -> None:
    assert spec["summary"]
    assert spec["description"]
    assert spec["tags"]
    for status, response in spec["responses"].items():
        assert response["description"]
        for media, content in response.get("content", {}).items():
            assert content.get("schema"), (status, media)


def test_the_project_can_take_the_openai_face_away() -> None:
    off = OwnHttpKeys(disable_openai=True)
    away = {operation.path for operation in operations() if not is_served(operation, None, off)}
    assert away == {path for _, path, _ in EVERY if path.startswith("/v1/")}
    assert len(away) == 7
