"""The page on budgets tells of every setting, and its example runs and prints what the page says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path

from waystation_guards.budget.alerts import EVENT_TYPE, Alert
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guards/budget.md").read_text()
EXAMPLE = ROOT / "tests/fixtures/guards/budget_example.py"


def block(after: str, kind: str) -> str:
    """The first block of code behind a text."""
    return PAGE.partition(after)[2].partition(f"```{kind}\n")[2].partition("```")[0]


def test_the_example_prints_what_the_page_says() -> None:
    assert block("# Budgets", "python").strip() == EXAMPLE.read_text().strip()
    ran = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == block("It prints", "")


def test_every_setting_has_its_line() -> None:
    for one in fields(Limit):
        assert f"| `{one.name}` |" in PAGE, one.name
    for name in list(signature(Budget).parameters)[1:]:
        assert f"`{name}`" in PAGE, name


def test_what_alerts_have_is_told() -> None:
    assert f'"type": "{EVENT_TYPE}"' in PAGE
    for one in fields(Alert):
        assert f"`{one.name}`" in PAGE, one.name
