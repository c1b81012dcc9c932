"""The face of a run just created."""

from __future__ import annotations

import json

from waystation.runs.admission import Admitted
from waystation_db.rows import RunKey
from waystation_db.runs import CreatedRun


def test_numbers_beyond_64_bits_do_not_break_the_answer() -> None:
    big = 79217926477151059066880
    row = CreatedRun("r", "t", "a", "g", "pending", 0, 0, {"n": big}, {}, {}, "now", "now")
    face = json.loads(Admitted(RunKey("default", "t", "r"), row, kwargs={"input": big}, resumable=False).face())
    assert float(face["metadata"]["n"]) == float(big)
    assert float(face["kwargs"]["input"]) == float(big)
