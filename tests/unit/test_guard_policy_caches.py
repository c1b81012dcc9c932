"""Caches that a policy puts around calls get along with those that a graph brings along."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from scripted_calls import ScriptedModel
from waystation.catalog.keys_guards import read_guards
from waystation.guarding.policy import Policy
from waystation.guarding.whose import Whose
from waystation_db.pool import Database
from waystation_guards.caching.answers import MARK
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.caching.rules import CacheRules
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports

pytestmark = pytest.mark.anyio

MINE = Whose(graph="agent", assistant="a-1", tenant="acme", user="ann", key="k1")


async def test_a_model_that_the_graph_caches_itself_does_not_wait_for_itself() -> None:
    use_ports(memory_ports())
    patient = {"temperature": "any", "wait_s": 3600, "lock_s": 3600}
    policy = Policy(read_guards({"cache": [patient]}, Path()), Path(), db=cast("Database", None))
    answers = ResponseCache(CacheRules(temperature="any", wait_s=3600, lock_s=3600))
    model = CachedModel(inner=ScriptedModel(), answers=answers)
    with policy.of(MINE).over_calls():
        async with asyncio.timeout(60):
            await model.ainvoke("hi")
            hit = await model.ainvoke("hi")
    assert hit.response_metadata[MARK]["layer"] == "exact"
    assert len(cast("ScriptedModel", model.inner).calls) == 1
