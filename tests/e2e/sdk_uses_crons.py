"""Each method of the SDK's crons, used. That they fire is tested elsewhere; these never do."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError

from e2e.sdk_entries import covers
from live_server import Client

RARELY = "0 3 1 1 *"
LATER = datetime.now(UTC) + timedelta(days=800)
OF_A_RUN: dict[str, Any] = {
    "input": {"n": 0},
    "config": {"tags": ["t"]},
    "context": {"model_name": "big"},
    "interrupt_before": ["show"],
    "interrupt_after": ["show"],
    "stream_mode": ["updates"],
    "stream_subgraphs": True,
    "stream_resumable": True,
    "durability": "exit",
}
OF_A_CRON: dict[str, Any] = {"end_time": LATER, "enabled": False, "timezone": ZoneInfo("Europe/Berlin")}


def kept(cron: dict[str, Any]) -> None:
    """What was given of the run and the cron is in what the server says of it."""
    payload = cron["payload"]
    assert (payload["input"], payload["context"]) == ({"n": 0}, {"model_name": "big"})
    assert payload["config"]["tags"] == ["t"]
    assert (payload["interrupt_before"], payload["interrupt_after"]) == (["show"], ["show"])
    assert (payload["stream_mode"], payload["durability"]) == (["updates"], "exit")
    assert datetime.fromisoformat(cron["end_time"]) == LATER
    assert (cron["enabled"], cron["timezone"]) == (False, "Europe/Berlin")
    assert cron["next_run_date"].endswith("-01-01T02:00:00.000000+00:00")


@covers(
    "crons.create",
    *("assistant_id", "schedule", "metadata", "on_run_completed", "multitask_strategy", "checkpoint_during"),
    *OF_A_RUN,
    *OF_A_CRON,
)
async def a_cron_is_made(sdk: Client) -> None:
    cron = await sdk.crons.create(
        "echo", schedule=RARELY, metadata={"a": 1}, on_run_completed="keep", **OF_A_RUN, **OF_A_CRON
    )
    kept(cron)
    assert (cron["schedule"], cron["metadata"], cron["on_run_completed"]) == (RARELY, {"a": 1}, "keep")
    other = await sdk.crons.create("steps", schedule=RARELY, multitask_strategy="reject", checkpoint_during=False)
    assert other["payload"]["multitask_strategy"] == "reject"
    for made in (cron, other):
        await sdk.crons.delete(made["cron_id"])


@covers("crons.create_for_thread", "thread_id", "assistant_id", "schedule", "metadata", *OF_A_RUN, *OF_A_CRON)
async def a_threads_cron_is_made(sdk: Client) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    given: dict[str, Any] = {"schedule": RARELY, "metadata": {"a": 1}}
    cron = await sdk.crons.create_for_thread(thread_id, "echo", **given, **OF_A_RUN, **OF_A_CRON)
    kept(cron)
    assert (cron["thread_id"], cron["metadata"]) == (thread_id, {"a": 1})
    await sdk.crons.delete(cron["cron_id"])


@covers("crons.create_for_thread", "multitask_strategy", "checkpoint_during")
async def a_threads_cron_waits_its_turn_or_not(sdk: Client) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    given: dict[str, Any] = {"schedule": RARELY, "multitask_strategy": "rollback", "checkpoint_during": True}
    cron = await sdk.crons.create_for_thread(thread_id, "steps", **given)
    assert cron["payload"]["multitask_strategy"] == "rollback"
    await sdk.crons.delete(cron["cron_id"])


@covers("crons.update", "cron_id", "schedule", "metadata", "on_run_completed", *OF_A_RUN, *OF_A_CRON)
async def a_cron_is_changed(sdk: Client) -> None:
    cron_id = (await sdk.crons.create("echo", schedule="0 4 1 1 *", metadata={"a": 1}))["cron_id"]
    changes: dict[str, Any] = {"schedule": RARELY, "metadata": {"b": 2}, "on_run_completed": "keep"}
    cron = await sdk.crons.update(cron_id, **changes, **OF_A_RUN, **OF_A_CRON)
    kept(cron)
    assert (cron["schedule"], cron["metadata"], cron["on_run_completed"]) == (RARELY, {"a": 1, "b": 2}, "keep")
    assert (await sdk.crons.update(cron_id, end_time=None))["end_time"] is None
    await sdk.crons.delete(cron_id)


@covers("crons.create", "webhook")
async def a_crons_webhook_that_leads_inside_is_refused(sdk: Client) -> None:
    with pytest.raises(UnprocessableEntityError, match="webhook"):
        await sdk.crons.create("steps", schedule=RARELY, webhook="http://127.0.0.1:9/hook")


@covers("crons.create_for_thread", "webhook")
async def a_threads_crons_webhook_that_leads_inside_is_refused(sdk: Client) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    with pytest.raises(UnprocessableEntityError, match="webhook"):
        await sdk.crons.create_for_thread(thread_id, "steps", schedule=RARELY, webhook="http://127.0.0.1:9/hook")


@covers("crons.update", "webhook")
async def a_changed_webhook_that_leads_inside_is_refused(sdk: Client) -> None:
    cron_id = (await sdk.crons.create("steps", schedule=RARELY))["cron_id"]
    with pytest.raises(UnprocessableEntityError, match="webhook"):
        await sdk.crons.update(cron_id, webhook="http://127.0.0.1:9/hook")
    await sdk.crons.delete(cron_id)


@covers("crons.delete", "cron_id")
async def a_cron_is_deleted(sdk: Client) -> None:
    cron_id = (await sdk.crons.create("steps", schedule=RARELY))["cron_id"]
    await sdk.crons.delete(cron_id)
    with pytest.raises(NotFoundError):
        await sdk.crons.delete(cron_id)


@covers(
    "crons.search",
    *("assistant_id", "thread_id", "enabled", "metadata", "limit", "offset", "sort_by", "sort_order", "select"),
)
@covers("crons.count", "assistant_id", "thread_id", "metadata")
async def crons_are_searched_and_counted(sdk: Client) -> None:
    mark = {"mark": uuid.uuid4().hex}
    assistant_id = (await sdk.assistants.create("steps"))["assistant_id"]
    thread_id = (await sdk.threads.create())["thread_id"]
    first = await sdk.crons.create(assistant_id, schedule="0 3 2 1 *", metadata=mark)
    second = await sdk.crons.create_for_thread(thread_id, "echo", schedule=RARELY, metadata=mark, enabled=False)

    async def found(**asked: Any) -> list[str]:
        crons = await sdk.crons.search(metadata=mark, select=["cron_id"], **asked)
        assert all(set(cron) == {"cron_id"} for cron in crons)
        return [cron["cron_id"] for cron in crons]

    newest_first = [second["cron_id"], first["cron_id"]]
    assert await found() == newest_first
    assert await found(sort_by="created_at", sort_order="asc") == newest_first[::-1]
    assert await found(limit=1, offset=1) == newest_first[1:]
    assert await found(enabled=False) == await found(thread_id=thread_id) == newest_first[:1]
    assert await found(assistant_id=assistant_id) == newest_first[1:]
    assert await sdk.crons.count(metadata=mark) == 2
    assert await sdk.crons.count(metadata=mark, assistant_id=assistant_id) == 1
    assert await sdk.crons.count(thread_id=thread_id) == 1
    for cron_id in newest_first:
        await sdk.crons.delete(cron_id)
