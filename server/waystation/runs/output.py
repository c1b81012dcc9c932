"""The answer of `wait` and `join`: the output of a run that is final, or its error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from waystation.events import ONLY_END, End
from waystation.services import Services
from waystation_db import runs
from waystation_db.json import dumps
from waystation_db.retrying import until_done
from waystation_db.rows import RunKey
from waystation_db.runs import RunOutput

T = TypeVar("T")

_RETRY_S = 60.0

RUN_NOT_FOUND = {"error": "HTTPException", "message": "404: Run not found"}
"""What clients of the protocol expect when they join a run that is not there: an error in a 200 answer."""


async def output_of(services: Services, key: RunKey, *, resumable: bool) -> bytes:
    """Wait until the run is final and give its output as JSON: values, with `__interrupt__` or `__error__` where due.

    `wait` answers only when the run is final; cancelling this waits no longer and has no effect on the run.
    """
    end = End(None)
    async for batch in services.log.read(key, after=ONLY_END, resumable=resumable):
        if isinstance(batch, End):
            end = batch
            break
    return await answer(services, key, end)


async def joined_output(services: Services, key: RunKey) -> bytes:
    """As `output_of`, for a run somebody else created; an unknown run is an error inside the answer."""
    state = await _read(services, lambda conn: runs.run_state(conn, key))
    if state is None:
        return _error(RUN_NOT_FOUND)
    if state.is_final:
        return await answer(services, key, End(None))
    return await output_of(services, key, resumable=state.resumable)


async def answer(services: Services, key: RunKey, end: End) -> bytes:
    """The output that belongs to an end: from the log's own copy, else from the thread's row."""
    if end.status in ("error", "timeout") and end.error is not None:
        return _error(end.error)
    if end.values is not None:
        return end.values
    found = await _read(services, lambda conn: runs.run_output(conn, key))
    if found is None:
        return _error(RUN_NOT_FOUND)
    if found.status in ("error", "timeout") and found.error is not None:
        return _error(found.error)
    return _values(found)


async def _read(services: Services, look: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
    """Ask Postgres until it answers: the answer has begun already, and an outage ends no run."""

    async def once() -> T:
        async with services.db.connection() as conn:
            return await look(conn)

    return await until_done(once, retry_s=_RETRY_S)


def _error(error: dict[str, Any]) -> bytes:
    return orjson.dumps({"__error__": error})


def _values(found: RunOutput) -> bytes:
    values = (found.values or "null").encode()
    pending = [interrupt for task in (found.interrupts or {}).values() for interrupt in task]
    if found.status != "success" or not pending:
        return values
    found_state = orjson.loads(values)
    # What a functional graph returns may be anything, and is nothing before its first return.
    state: dict[str, Any] = cast("dict[str, Any]", found_state) if isinstance(found_state, dict) else {}
    state["__interrupt__"] = [{**i, "response_schema": i.get("response_schema")} for i in pending]
    return dumps(state)  # Postgres gives large numbers back as integers that orjson refuses
