"""Plays a plan against one request: the answer, or its failure, with what it will cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil

from .bill import Charge, Tariff
from .plan import MIDDLE, STATUS, Plan
from .target import Seen, Target
from .turn import Api, Turn
from .wire import Connection, Gone

_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Broken(Exception):
    """The plan ended the connection."""


class Play:
    """One request on its connection. `run` returns when the connection can take the next one."""

    def __init__(
        self, connection: Connection, api: Api, target: Target, seen: Seen, turn: Turn, tariff: Tariff
    ) -> None:
        self._connection = connection
        self._api = api
        self._target = target
        self._seen = seen
        self._turn = turn
        self._plan = turn.plan
        self._tariff = tariff
        self._sent = 0

    async def run(self) -> None:
        """Raises Gone or Broken when the connection is over."""
        plan, seen = self._plan, self._seen
        try:
            if plan.fault == "reset":
                self._connection.reset()
                raise Broken
            await self._connection.pause(None if plan.fault == "hang" else plan.first_s)
            if plan.fault in STATUS:
                await self._refuse(plan.fault, plan.status or STATUS[plan.fault], plan.retry_after_s)
            elif wait_s := self._target.take(self._turn.asked.input_tokens + (self._turn.asked.max_tokens or 0)):
                await self._refuse("rate_limit", 429, wait_s)
            elif plan.fault == "wrong_type":
                await self._whole(_HTML, "text/html")
            elif self._turn.asked.stream:
                await self._stream()
            else:
                await self._whole(json.dumps(self._api.whole(self._turn)).encode(), "application/json")
            seen.ended = "failed" if seen.status >= 400 or plan.fault == "error_event" else "answered"
        except Broken:
            seen.ended = "failed"
            raise
        except Gone:
            seen.ended = "aborted"
            raise
        finally:
            seen.sent_tokens = self._sent
            self._charge()

    async def _refuse(self, kind: str, status: int, retry_after_s: float | None) -> None:
        self._seen.status = status
        headers = {"content-type": "application/json", **self._headers()}
        body = json.dumps(self._api.error(kind)).encode()
        if kind == "bad_gateway":
            headers["content-type"], body = "text/html", _HTML
        if retry_after_s is not None and kind in ("rate_limit", "overloaded", "unavailable"):
            headers.update(_retry_after(self._plan, retry_after_s))
        if status >= 500 or status in (429, 408, 409):
            headers["x-should-retry"] = "true"
        await self._connection.answer(status, body, headers)

    async def _whole(self, body: bytes, content_type: str) -> None:
        self._sent = self._turn.tokens  # worked on, even if the client does not wait for it
        if self._plan.pause_s:
            await self._connection.pause(self._plan.pause_s * self._turn.tokens)
        headers = {"content-type": content_type, **self._headers()}
        self._seen.status = self._plan.status or 200
        if self._plan.fault not in MIDDLE or self._plan.fault == "error_event":
            if self._plan.fault == "error_event":
                body = json.dumps(self._api.error("overloaded")).encode()
            await self._connection.answer(self._seen.status, body, headers)
            return
        if self._plan.fault == "malformed":
            await self._connection.answer(self._seen.status, body[: len(body) // 2], headers)
            return
        await self._connection.begin(self._seen.status, headers)
        await self._connection.chunk(body[: len(body) // 2])
        await self._break()

    async def _stream(self) -> None:
        plan, connection = self._plan, self._connection
        self._sent = plan.reasoning
        self._seen.status = plan.status or 200
        await connection.begin(self._seen.status, {"content-type": "text/event-stream", **self._headers()})
        middle = plan.fault in MIDDLE or plan.fault == "no_end"
        for event in self._api.events(self._turn):
            over = self._sent - plan.reasoning >= plan.after or event.is_end
            if middle and over and (event.tokens or event.is_end):
                if await self._fail():
                    return
                middle = False  # a malformed chunk or an error event, and the stream goes on as if nothing was
            if plan.fault == "truncated_tool" and event.is_end:
                break
            if plan.fault == "no_finish" and event.is_end and not event.is_mark:
                continue
            if event.tokens:
                await connection.pause(plan.pause_s)
            await connection.chunk(event.data)
            self._sent += event.tokens
        await connection.end()

    async def _fail(self) -> bool:
        """The fault in the middle; whether the stream is over by it."""
        if self._plan.fault == "no_end":
            await self._connection.end()
            return True
        if self._plan.fault == "malformed":
            await self._connection.chunk(b'event: message\ndata: {"choices": [{"delta": {"content": "ha\n\n')
            await self._connection.pause(10.0)  # clients leave; nothing more is made for these
            return False
        if self._plan.fault == "error_event":
            await self._connection.chunk(self._api.error_event(self._plan.error))
            await self._connection.end()
            return True
        await self._break()
        return True

    async def _break(self) -> None:
        if self._plan.fault == "hang_mid_stream":
            await self._connection.pause(None)
        if self._plan.fault == "reset_mid_stream":
            await self._connection.pause(0.05)  # an RST overtakes what the client has not read yet
            self._connection.reset()
        raise Broken

    def _headers(self) -> dict[str, str]:
        return {
            "x-request-id": self._turn.id,
            "request-id": self._turn.id,
            **self._target.rate_headers(self._api.name),
            **self._plan.headers,
        }

    def _charge(self) -> None:
        """Nothing for a request that was refused or never begun; the prompt of one that hangs was read."""
        never_begun = self._seen.status in (0, 429) and self._plan.fault != "hang"
        if self._plan.fault in STATUS or never_begun:
            return
        asked, turn = self._turn.asked, self._turn
        self._target.charges.append(
            Charge(
                self._target.name,
                asked.model,
                asked.input_tokens,
                self._sent,
                turn.cached,
                self._plan.reasoning,
                aborted=self._seen.ended != "answered" or self._sent < turn.tokens,
                user=str(asked.body.get("user") or ""),
                tariff=self._tariff,
            )
        )


def _retry_after(plan: Plan, seconds: float) -> Mapping[str, str]:
    if plan.retry_after_as == "date":
        return {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=ceil(seconds)), usegmt=True)}
    if plan.retry_after_as == "milliseconds":
        return {"retry-after-ms": str(ceil(seconds * 1000))}
    return {"retry-after": f"{seconds:g}"}
