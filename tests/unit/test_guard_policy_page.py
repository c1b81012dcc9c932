"""The page on policies tells of every key, and its example is one."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from waystation.catalog.keys_guards import GuardKeys, LevelKeys, read_guards
from waystation.catalog.keys_guards_caches import SemanticKeys, ToolCacheKeys
from waystation.catalog.keys_guards_for import SelectorKeys
from waystation.catalog.keys_guards_own import AlertKeys, KillKeys, MetricsKeys
from waystation_guards import errors
from waystation_guards.budget.limits import Limit
from waystation_guards.caching.rules import CacheRules
from waystation_guards.rates.rules import ModelRate

PAGE = (Path(__file__).parents[2] / "docs/guards/policy.md").read_text(encoding="utf-8")


def test_the_example_is_a_policy(tmp_path: Path) -> None:
    example = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])
    keys = read_guards(example["waystation"]["guards"], tmp_path)
    assert len(keys.budgets) == 3


@pytest.mark.parametrize(
    "of",
    [
        GuardKeys,
        SelectorKeys,
        LevelKeys,
        KillKeys,
        AlertKeys,
        MetricsKeys,
        Limit,
        ModelRate,
        CacheRules,
        SemanticKeys,
        ToolCacheKeys,
    ],
)
def test_every_key_is_told(of: Any) -> None:
    names: list[str] = [one.name for one in fields(of)] if is_dataclass(of) else list(of.model_fields)
    for name in names:
        assert f"`{name}`" in PAGE, name


def test_every_code_that_a_run_may_fail_with_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE.partition("Codes:")[2].partition("\n\n")[0]))
    known = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.GuardError)]
    assert told <= {one.code for one in known}
    for one in (errors.BudgetExceeded, errors.RateLimited, errors.NotPermitted, errors.InMinimal, errors.InMaintenance):
        assert one.code in told
    assert errors.Killed.code in told
