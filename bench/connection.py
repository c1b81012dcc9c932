"""As little HTTP as a load generator needs: one kept connection, raw bytes, no parsing of what nobody looks at."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Self

_DEADLINE_S = 90.0
_CHUNK = 1 << 16
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Answer:
    """`body` of a stream still has its chunks' frames in it. Times are seconds since the request was sent."""

    status: int
    body: bytes
    total_s: float
    first_event_s: float = 0.0
    first_mark_s: float = 0.0


class Connection:
    """One keep-alive connection to 127.0.0.1; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    def close(self) -> None:
        self._writer.close()

    async def post(self, path: str, body: bytes) -> Answer:
        return await self._request("POST", path, body, b"")

    async def get(self, path: str) -> Answer:
        return await self._request("GET", path, b"", b"")

    async def stream(self, path: str, body: bytes, *, mark: bytes) -> Answer:
        """Reads to the end and notes when the first event came, and the first with `mark` in its bytes."""
        return await self._request("POST", path, body, mark)

    async def _request(self, method: str, path: str, body: bytes, mark: bytes) -> Answer:
        began = time.perf_counter()
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(_DEADLINE_S):
            answer = await self._read(began, mark)
        answer.total_s = time.perf_counter() - began
        return answer

    async def _read(self, began: float, mark: bytes) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        answer = Answer(int(head[9:12]), b"", 0.0)
        length_at = head.find(b"content-length:")
        if length_at >= 0:
            answer.body = await self._reader.readexactly(int(head[length_at + 15 : head.index(b"\r", length_at)]))
        elif b"transfer-encoding: chunked" in head:
            answer.body = await self._chunks(answer, began, mark)
        return answer

    async def _chunks(self, answer: Answer, began: float, mark: bytes) -> bytes:
        parts = [b"\r\n"]
        tail = b""
        while not tail.endswith(_LAST_CHUNK):
            data = await self._reader.read(_CHUNK)
            if not data:
                raise ConnectionError("the server closed the connection in the middle of an answer")
            if mark:
                self._note(answer, tail + data, began, mark)
            parts.append(data)
            tail = (tail + data)[-64:]
        return b"".join(parts)

    def _note(self, answer: Answer, seen: bytes, began: float, mark: bytes) -> None:
        if not answer.first_event_s and b"event: " in seen:
            answer.first_event_s = time.perf_counter() - began
        if not answer.first_mark_s and mark in seen:
            answer.first_mark_s = time.perf_counter() - began
