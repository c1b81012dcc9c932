"""Writes the dashboards: `python deploy/grafana/build.py`. With `--check` it says which are not what it would write."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from boards.cost import COST
from boards.engine import ENGINE
from boards.overview import OVERVIEW
from boards.providers import PROVIDERS
from panels import dashboard

BOARDS = {"overview": OVERVIEW, "run-engine": ENGINE, "cost": COST, "providers": PROVIDERS}
FOLDER = Path(__file__).with_name("dashboards")


def written() -> dict[Path, str]:
    """File → what it should hold."""
    return {FOLDER / f"{name}.json": json.dumps(dashboard(board), indent=1) + "\n" for name, board in BOARDS.items()}


def main() -> None:
    texts = written()
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"not what build.py writes: {', '.join(stale)}" if stale else 0)
    for path, text in texts.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
