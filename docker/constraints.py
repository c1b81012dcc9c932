"""Print what the server needs of its dependencies, as constraints for the packages of a user's project.

The ranges of `pyproject.toml`, not our pins: a project may bring any version that the server works with.

    python docker/constraints.py pyproject.toml > /api/constraints.txt
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
for dependency in project["dependencies"]:
    # Constraints have no extras: `psycopg[binary]>=3` constrains psycopg.
    sys.stdout.write(re.sub(r"\[[^\]]*\]", "", dependency) + "\n")
