"""The pages' examples run and print what the pages say; their tables are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from waystation_guards.failover.policy import DECISIONS, FailoverPolicy
from waystation_guards.levels.levels import LEVELS, LevelPolicy

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "guards"


@pytest.mark.parametrize("page", ["failover.md", "levels.md"])
def test_the_example_prints_what_the_page_says(page: str) -> None:
    text = (PAGES / page).read_text()
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-c", found[1]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "graphs")},
    )
    assert (done.returncode, done.stdout) == (0, found[2]), done.stderr


def test_the_table_of_decisions_is_the_codes() -> None:
    text = (PAGES / "failover.md").read_text()
    for kind, row in DECISIONS.items():
        then, counts = {"next": "next target", "fail": "the error itself"}[row.then], "yes" if row.counts else "no"
        assert f"| `{kind}` | {row.retries} | {row.last_retries} | {then} | {counts} |" in text


@pytest.mark.parametrize(("page", "settings"), [("failover.md", FailoverPolicy), ("levels.md", LevelPolicy)])
def test_every_setting_is_described(page: str, settings: type) -> None:
    text = (PAGES / page).read_text()
    assert [one.name for one in fields(settings) if f"| `{one.name}` |" not in text] == []


def test_every_level_is_described() -> None:
    text = (PAGES / "levels.md").read_text()
    assert [level for level in LEVELS if f"| `{level}` |" not in text] == []
