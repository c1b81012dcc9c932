"""What handlers may return to narrow what is seen, and how users, roles and tenants read."""

from __future__ import annotations

import copy
import json
import uuid
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph_sdk.auth.types import BaseUser, StudioUser
from pydantic import BaseModel

from waystation.auth import User, user_from
from waystation.auth.filters import UnusableFilter, compile_filter, merge_filters
from waystation.auth.principal import is_tenant_id
from waystation_db.tenants import ThreadScope, checkpoint_thread

SOME_ID = uuid.UUID("11111111-2222-4333-8444-555555555555")


@pytest.mark.parametrize(
    ("given", "compiled"),
    [
        ({}, {}),
        ({"owner": "a"}, {"owner": "a"}),
        ({"owner": {"$eq": "a"}}, {"owner": "a"}),
        ({"tags": {"$contains": "x"}}, {"tags": ["x"]}),
        ({"tags": {"$contains": ["x", "y"]}}, {"tags": ["x", "y"]}),
        ({"tags": {"$contains": ()}}, {"tags": []}),
        ({"a": 1, "b": True, "c": None, "d": 1.5}, {"a": 1, "b": True, "c": None, "d": 1.5}),
        ({"id": SOME_ID}, {"id": str(SOME_ID)}),
        ({"owner": "a", "team": {"$contains": "b"}}, {"owner": "a", "team": ["b"]}),
    ],
)
def test_filters_become_one_document(given: dict[str, Any], compiled: dict[str, Any]) -> None:
    assert json.loads(compile_filter(given)) == compiled


@pytest.mark.parametrize(
    "given",
    [
        {"owner": {"$ne": "a"}},
        {"owner": {"$eq": "a", "$contains": "b"}},
        {"owner": {}},
        {"owner": {"$eq": ["a"]}},
        {"owner": {"$eq": {"a": 1}}},
        {"owner": {"$contains": {"a": 1}}},
        {"owner": {"$contains": [["a"]]}},
        {"owner": ["a"]},
        {"owner": object()},
        {"owner": "a\0"},
        {"owner": "\ud800"},
        {"own\0er": "a"},
        {"$or": "x"},
        {1: "a"},
    ],
)
def test_anything_else_is_no_filter(given: dict[Any, Any]) -> None:
    with pytest.raises(UnusableFilter):
        compile_filter(given)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 1}, {"a": 1}),
        ({"a": ["x"]}, {"a": ["y", "x"]}, {"a": ["x", "y"]}),
        ({"a": 1}, {"a": 2}, None),
        ({"a": "x"}, {"a": ["x"]}, None),
    ],
)
def test_two_filters_hold_both(one: dict[str, Any], other: dict[str, Any], both: dict[str, Any] | None) -> None:
    merged = merge_filters(json.dumps(one), json.dumps(other))
    assert (None if merged is None else json.loads(merged)) == both


class Model(BaseModel):
    identity: str = "m"
    plan: str = "pro"


@dataclass
class Plain:
    identity: str = "p"
    plan: str = "pro"


class Odd:
    plan = "pro"
    is_authenticated = False

    @property
    def identity(self) -> str:
        return "o"

    def method(self) -> str:
        return "called"


@pytest.mark.parametrize(
    ("given", "identity", "is_authenticated"),
    [
        ("t", "t", True),
        ({"identity": "d", "plan": "pro"}, "d", True),
        (Model(), "m", True),
        (Plain(), "p", True),
        (Odd(), "o", False),
        (StudioUser("s", is_authenticated=True), "s", True),
    ],
)
def test_a_user_has_the_same_face_whatever_it_was(given: object, identity: str, is_authenticated: bool) -> None:
    user = user_from(given)
    assert isinstance(user, BaseUser)
    assert user["identity"] == user.identity == user.display_name == identity
    assert user.is_authenticated is is_authenticated
    assert "identity" in user
    if isinstance(given, Model | Plain | Odd | dict):
        assert user.plan == user["plan"] == "pro"
    if isinstance(given, Odd):
        assert user.method() == "called"
    with pytest.raises(AttributeError):
        _ = user.nonsense


@pytest.mark.parametrize("given", [None, 7, {}, {"identity": 7}, {"identity": None}, object(), []])
def test_what_has_no_identity_is_nobody(given: object) -> None:
    with pytest.raises(TypeError):
        user_from(given)


def test_a_user_travels_as_plain_json() -> None:
    user = user_from({"identity": "a", "when": object(), "bad": "\ud800", "id": SOME_ID}).as_json()
    assert json.loads(orjson.dumps(user)) == dict(user)
    assert user["id"] == str(SOME_ID)
    assert copy.deepcopy(user).identity == "a"
    serde = JsonPlusSerializer()
    assert serde.loads_typed(serde.dumps_typed({"user": user}))["user"]["identity"] == "a"
    assert User(user).permissions == []


@pytest.mark.parametrize(("text", "good"), [("acme", True), ("org_1.a:b@c|d+e=f~g-h", True), ("a/b", False)])
def test_tenants_have_names_that_fit_into_keys(text: str, good: bool) -> None:
    assert is_tenant_id(text) is good
    assert not any(is_tenant_id(bad) for bad in ("", " a", "a b", "a\n", "ä", "{a}", "-a", "x" * 129, "a\0"))


def test_a_graph_of_the_default_tenant_cannot_name_another_tenants_thread() -> None:
    stored = checkpoint_thread("acme", str(SOME_ID))
    assert stored == f"acme/{SOME_ID}"
    assert ThreadScope("acme").stored(str(SOME_ID)) == stored
    assert ThreadScope("acme").shown(stored) == str(SOME_ID)
    assert ThreadScope("acme").stored(f"rival/{SOME_ID}") == f"acme/rival/{SOME_ID}"
    assert checkpoint_thread("default", str(SOME_ID)) == ThreadScope("default").stored(str(SOME_ID)) == str(SOME_ID)
    assert ThreadScope("default").stored("any/thing") == "any/thing"
    with pytest.raises(ValueError, match="belongs to a tenant"):
        ThreadScope("default").stored(stored)
