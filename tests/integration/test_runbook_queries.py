"""The questions to Postgres in the runbooks can be asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from waystation_db.pool import Database

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "docs/operations/runbooks"


async def test_every_question_of_the_runbooks_has_an_answer(db: Database) -> None:
    blocks = [
        block
        for page in sorted(FOLDER.glob("*.md"))
        for block in re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    asked = 0
    for block in blocks:
        for statement in re.sub(r"--.*", "", block).split(";"):
            if statement.strip():
                async with db.connection() as conn:
                    await conn.execute(statement.encode())
                asked += 1
    assert asked >= 10
