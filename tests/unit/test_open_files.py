"""How many files a process may have open, and what of it streams get."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from waystation.api.open_files import RESERVED, room_for_streams

RAISED = """
import resource
from waystation.api.open_files import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 2000))
raise_limit()
raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_process_takes_what_it_may_have() -> None:
    done = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True, check=True)
    assert done.stdout == "(2000, 2000)\n"


@pytest.mark.parametrize(
    ("limit", "wanted", "got"),
    [
        (resource.RLIM_INFINITY, 10_000, 10_000),
        (20_000, 10_000, 10_000),
        (1024, 10_000, 1024 - RESERVED),
        (1024, 100, 100),
        (256, 10_000, 128),
    ],
)
def test_streams_leave_some_files_to_the_others(
    limit: int, wanted: int, got: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (limit, limit))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]  # a lambda's parameter has no type
    assert room_for_streams(wanted) == got
