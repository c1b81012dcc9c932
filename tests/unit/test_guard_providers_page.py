"""The page on providers tells of every setting and class, and its example runs and prints what the page says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

from waystation_guards.providers.errors import ErrorClass
from waystation_guards.providers.models import ModelSettings, Timeouts
from waystation_guards.providers.whole_streams import StreamRules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guards/providers.md").read_text()
EXAMPLE = ROOT / "tests/fixtures/guards/providers_example.py"


def block(after: str, kind: str) -> str:
    """The first block of code behind a text."""
    return PAGE.partition(after)[2].partition(f"```{kind}\n")[2].partition("```")[0]


def test_the_example_prints_what_the_page_says() -> None:
    assert block("# Providers", "python").strip() == EXAMPLE.read_text().strip()
    ran = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == block("It prints", "")


def test_every_setting_and_its_default_is_told() -> None:
    for one in fields(ModelSettings):
        assert f"| `{one.name}` |" in PAGE, one.name
    for one in fields(Timeouts):
        assert f"| `{one.name}` | {one.default:g} |" in PAGE, one.name
    for one in fields(StreamRules):
        assert f"`{one.name}`" in PAGE, one.name


def test_every_class_of_error_is_told() -> None:
    for kind in get_args(ErrorClass):
        assert f"\n| `{kind}` |" in PAGE, kind
