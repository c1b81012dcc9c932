"""The page on the guards' ports: its example runs and prints what the page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guards/ports.md").read_text()
EXAMPLE = ROOT / "tests/fixtures/guards/ports_example.py"


def block(after: str, kind: str) -> str:
    """The first block of code behind a text."""
    return PAGE.partition(after)[2].partition(f"```{kind}\n")[2].partition("```")[0]


def test_the_example_prints_what_the_page_says() -> None:
    assert block("# What guards stand on", "python").strip() == EXAMPLE.read_text().strip()
    ran = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == block("It prints", "")
