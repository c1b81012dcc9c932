"""Our saver against LangGraph's public conformance suite for checkpointers: one test per capability, none skipped, with
encryption and without."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from waystation_db.aes import AesCipher
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.pool import Database

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("cipher", [None, AesCipher({"k1": bytes(32)})], ids=["plain", "encrypted"])
@pytest.mark.parametrize("capability", [one.value for one in Capability])
async def test_saver_passes_the_public_suite(capability: str, cipher: AesCipher | None, db: Database) -> None:
    @checkpointer_test(name="waystation")
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        saver = PostgresCheckpointer(db, cipher=cipher)
        yield saver
        await saver.aclose()

    report = await validate(factory, capabilities={capability})

    result = report.results[capability]
    assert result.detected
    assert (result.failures, result.tests_failed) == ([], 0)
    assert result.tests_passed > 0
