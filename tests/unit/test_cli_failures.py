"""How a command says that it failed."""

from __future__ import annotations

import pytest

from waystation.cli.failures import sentence
from waystation_db.errors import DatabaseUnavailable


@pytest.mark.parametrize("end", ["", ".", "?"])
def test_a_sentence_of_postgres_gets_one_mark_at_its_end(end: str) -> None:
    told = sentence(DatabaseUnavailable(f"cannot connect to Postgres: Is it accepting connections{end}"))
    assert told.startswith(f"Cannot connect to Postgres: Is it accepting connections{end or '.'} Is it running")
