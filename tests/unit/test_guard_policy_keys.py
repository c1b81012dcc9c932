"""`waystation.guards`: what is refused, and that the message names the key; whose runs an entry is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from waystation.catalog.keys_guards import GuardKeys, read_guards
from waystation.catalog.project import read_project
from waystation.errors import ConfigError
from waystation.guarding.policy import Policy, limits, most_specific
from waystation.guarding.whose import Whose
from waystation_db.pool import Database

NO_DATABASE = cast("Database", None)  # nothing is asked of it where there are no levels
MINE = Whose(graph="agent", assistant="a-1", tenant="acme", user="ann", key="k1")


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        ({"budgets": [{"sise": 1}]}, "waystation.guards.budgets.0.sise is not known"),
        ({"budgets": [{"size": 1, "for": {"grph": "a"}}]}, "waystation.guards.budgets.0.for.grph is not known"),
        ({"budget": []}, "waystation.guards.budget is not known"),
        ({"prices": "none.json"}, "waystation.guards.prices is 'none.json'"),
        ({"rates": [{"requests": 0}]}, "requests of a model rate is 0"),
        ({"failover": [{"models": {"a": ["nobody:x"]}}]}, "waystation.guards.failover.0.models.a.0 is 'nobody:x'"),
        ({"cheaper": [{"models": {"a": "openai"}}]}, "waystation.guards.cheaper.0.models.a is 'openai'"),
        ({"levels": {"rules": [{"signal": "moon", "level": "reduced", "enter": 1}]}}, "signal of a rule is 'moon'"),
        ({"caps": [{"sends": 4}]}, "sends can only be capped in the graph"),
        ({"screening": [{"on_input": "mark"}]}, "graphs that nobody edited cannot mark"),
        ({"tool_cache": [{"ttl_s": 1}]}, "waystation.guards.tool_cache.0.tools is missing"),
        ({"tool_cache": [{"tools": "a"}]}, "waystation.guards.tool_cache.0.tools is 'a'"),
        ({"tool_cache": [{"tools": ["a"], "ttl": 1}]}, "waystation.guards.tool_cache.0.ttl is not known"),
        ({"tool_cache": [{"tools": ["a"], "scope": "galaxy"}]}, "waystation.guards.tool_cache.0.scope is 'galaxy'"),
        ({"tool_cache": [{"tools": ["a"], "wait_s": -1}]}, "wait_s of a tool's cache is -1"),
        ({"cache": [{"semantic": {"threshold": 2}}]}, "waystation.guards.cache.0.semantic.threshold is 2"),
        ({"cache": [{"semantic": {"store": "x"}}]}, "waystation.guards.cache.0.semantic.store is not known"),
        ({"levels": {"faq": "none.json"}}, "waystation.guards.levels.faq is 'none.json'"),
        ({"levels": {"faq": {"opening hours": 9}}}, "waystation.guards.levels.faq is {'opening hours': 9}"),
        ({"levels": {"faq": []}}, "waystation.guards.levels.faq is []: expected is the name of a JSON file"),
        ({"levels": {"faq": {"a": "b"}, "refuse_at": "minimal"}}, "nothing is answered at minimal where refuse_at"),
    ],
)
def test_a_policy_that_is_wrong_stops_the_start_and_names_the_key(
    tmp_path: Path, guards: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(read_guards(guards, tmp_path), tmp_path, db=NO_DATABASE)
    assert said in caught.value.message


def test_a_projects_file_is_named_with_all_that_is_wrong_in_it(tmp_path: Path) -> None:
    guards = {"budgets": [{"size": 1, "scope": "galaxy"}, {"unit": "usd"}], "budget_wait_s": -1}
    project = {"graphs": {"g": "./g.py:graph"}, "dependencies": ["."], "waystation": {"guards": guards}}
    (tmp_path / "langgraph.json").write_text(json.dumps(project))
    with pytest.raises(ConfigError) as caught:
        read_project(tmp_path)
    assert "langgraph.json: waystation.guards.budgets.0.scope is 'galaxy'" in caught.value.message
    assert "waystation.guards.budgets.1.size is missing" in caught.value.message
    assert "waystation.guards.budget_wait_s is -1" in caught.value.message


def test_a_project_without_guards_has_none(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text('{"graphs": {"g": "./g.py:graph"}, "dependencies": ["."]}')
    assert read_project(tmp_path).guards is None


@pytest.mark.parametrize(
    ("selector", "is_about"),
    [
        ({}, True),
        ({"graph": "agent"}, True),
        ({"graph": ["other", "ag*"]}, True),
        ({"graph": "other"}, False),
        ({"graph": "agent", "tenant": "rival"}, False),
        ({"graph": "agent", "tenant": "acme", "key": "k1", "user": "a*", "assistant": "a-1"}, True),
    ],
)
def test_all_members_of_a_selector_have_to_match(selector: dict[str, Any], is_about: bool) -> None:
    keys = read({"budgets": [{"size": 1, "for": selector}]})
    assert bool(limits_of(keys)) is is_about


def test_of_what_chooses_the_most_specific_entry_holds_and_of_equals_the_first() -> None:
    entries = [
        {"ttl_s": 1},
        {"ttl_s": 2, "for": {"graph": "agent", "tenant": "acme"}},
        {"ttl_s": 3, "for": {"key": "k1"}},
        {"ttl_s": 4, "for": {"key": "k*"}},
        {"ttl_s": 5, "for": {"user": "bob"}},
    ]
    keys = read({"cache": entries})
    assert most_specific(keys.cache, MINE) == 2
    assert most_specific(keys.cache, Whose("agent", "", "acme", "", "")) == 1
    assert most_specific(keys.cache, Whose("other", "", "", "", "")) == 0


def test_limits_for_some_runs_count_by_themselves_and_of_two_on_one_account_the_smaller_holds() -> None:
    day = {"scope": "tenant", "window": "day"}
    keys = read({"budgets": [{"size": 50, **day}, {"size": 20, **day}, {"size": 5, "for": {"graph": "agent"}, **day}]})
    assert [(limit.size, limit.name) for limit in limits_of(keys)] == [(20, ""), (5, "graph=agent")]


def test_runs_with_the_same_entries_share_their_guards() -> None:
    keys = read({"rates": [{"requests": 5}, {"requests": 1, "for": {"user": "bob"}}]})
    policy = Policy(keys, Path(), db=NO_DATABASE)
    one, other = policy.of(MINE), policy.of(Whose("agent", "a-2", "rival", "eve", ""))
    assert one is other
    assert policy.of(Whose("agent", "a-1", "acme", "bob", "")) is not one


@pytest.mark.parametrize(
    ("store", "distance", "said"),
    [
        ({"index": {"dims": 4, "embed": "./e.py:embed"}}, "cosine", ""),
        ({"index": {"dims": 4, "embed": "./e.py:embed"}}, "l2", "waystation.store.vectors.distance is 'l2'"),
        ({}, "cosine", "waystation.guards.cache.0.semantic needs store.index"),
    ],
)
def test_a_cache_by_meaning_needs_a_store_that_finds_what_means_the_same(
    tmp_path: Path, store: dict[str, Any], distance: str, said: str
) -> None:
    own: dict[str, Any] = {"guards": {"cache": [{"semantic": {}}]}, "store": {"vectors": {"distance": distance}}}
    project: dict[str, Any] = {"graphs": {"g": "./g.py:graph"}, "dependencies": ["."]}
    project |= {"store": store, "waystation": own}
    (tmp_path / "langgraph.json").write_text(json.dumps(project))
    if not said:
        assert read_project(tmp_path).guards is not None
        return
    with pytest.raises(ConfigError) as caught:
        read_project(tmp_path)
    assert said in caught.value.message


def test_tools_and_models_are_left_alone_where_the_policy_asks_for_nothing_of_them() -> None:
    applied = Policy(read({"budgets": [{"size": 1}]}), Path(), db=NO_DATABASE).of(MINE)
    assert (applied.layer, applied.results) == (None, None)


def read(guards: dict[str, Any]) -> GuardKeys:
    return read_guards(guards, Path())


def limits_of(keys: GuardKeys) -> Any:
    applied = Policy(keys, Path(), db=NO_DATABASE).of(MINE)
    return () if applied.budget is None else applied.budget.limits


def test_limits_are_those_of_the_entries_given() -> None:
    assert limits(read({}).budgets) == ()
