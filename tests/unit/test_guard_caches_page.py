"""The pages on caches and contexts tell of every setting, and their examples run and print what the pages say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from waystation_guards.caching.prompts import PromptCaching
from waystation_guards.caching.rules import CacheRules
from waystation_guards.caching.semantic import SemanticCache
from waystation_guards.caching.tools import ToolRule
from waystation_guards.context.routing import RoutingRules
from waystation_guards.context.thrift import Thrift

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["caches", "context"])
def test_the_example_prints_what_the_page_says(page: str) -> None:
    text, example = (ROOT / f"docs/guards/{page}.md").read_text(), ROOT / f"tests/fixtures/guards/{page}_example.py"
    assert text.partition("```python\n")[2].partition("```")[0].strip() == example.read_text().strip()
    ran = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == text.partition("It prints\n\n```\n")[2].partition("```")[0]


@pytest.mark.parametrize(
    ("page", "settings"),
    [
        ("caches", CacheRules),
        ("caches", ToolRule),
        ("caches", SemanticCache),
        ("caches", PromptCaching),
        ("context", Thrift),
        ("context", RoutingRules),
    ],
)
def test_every_setting_is_told(page: str, settings: Any) -> None:
    text = (ROOT / f"docs/guards/{page}.md").read_text()
    for one in fields(settings):
        assert f"`{one.name}`" in text, one.name
