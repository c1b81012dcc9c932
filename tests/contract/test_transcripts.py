"""The reference's transcripts, request by request, against a live server: every difference has its reason.

The scenarios that depend on the moment (multitasking, cancelling, leaving streams) have tests of their own in `e2e` and
`chaos`; the recorder and `python -m tests.contract.compare` compare those, too.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api_services import BASIC, api_services
from contract.compare import TRANSCRIPTS, Difference, read
from contract.differences import EXPLAINED
from contract.replay import Replay
from live_http import served
from waystation.app import create_app
from waystation.config import Settings

pytestmark = pytest.mark.anyio

SECURED = Path(__file__).parent / "fixtures" / "secured"
SCENARIOS = [
    *("01-system", "02-assistants", "03-threads", "04-state", "05-runs"),
    *("06-stateless", "09-config", "10-sse-modes", "12-interrupts", "13-store"),
    *("14-crons", "15-webhooks", "22-mcp", "23-a2a"),
    *("16-thread-stream", "17-events", "18-events-input", "19-events-errors", "20-websocket"),
    *("21-events-all-channels", "24-events-classic"),
]


async def test_a_project_with_auth_answers_as_the_reference_does(database_uri: str) -> None:
    await replay("30-auth", database_uri, project=SECURED)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_every_difference_from_the_reference_is_explained(scenario: str, database_uri: str) -> None:
    await replay(scenario, database_uri)


async def replay(scenario: str, database_uri: str, *, project: Path = BASIC) -> None:
    settings = Settings(database_uri=database_uri, n_jobs_per_worker=4)
    app = create_app(lambda: api_services(database_uri, project=project, settings=settings))
    unexplained: list[Difference] = []
    async with served(app) as (_, url), httpx.AsyncClient(base_url=url, timeout=60) as client:
        found = Replay(client, scenario).run(read(TRANSCRIPTS / f"{scenario}.jsonl"))
        unexplained += [x async for x in found if not any(rule.covers(x) for rule in EXPLAINED)]
    assert not unexplained, "\n".join(str(difference) for difference in unexplained)
