"""The pages on permissions, safety and audit: their examples are files that run, and print what the pages say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["permissions", "safety", "audit"])
def test_the_example_of_a_page_runs_and_prints_what_the_page_says(name: str) -> None:
    example = ROOT / "tests" / "fixtures" / "guards" / f"{name}_example.py"
    page = (ROOT / "docs" / "guards" / f"{name}.md").read_text(encoding="utf-8")
    assert f"```python\n{example.read_text(encoding='utf-8')}```" in page
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"It prints\n\n```\n{done.stdout}```" in page
