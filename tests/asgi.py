"""Calls an ASGI application in process: for answers that come in one piece. Streams need a live server."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from waystation.api.frame import Application


@asynccontextmanager
async def client_of(app: Application) -> AsyncGenerator[httpx.AsyncClient]:
    """An HTTP client that talks to the application directly. Its lifespan is the caller's business."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def post_raw(
    client: httpx.AsyncClient, path: str, body: bytes, *, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """POST bytes as they are, without a content type unless given."""
    return await client.post(path, content=body, headers=dict(headers or {}))


def detail(response: httpx.Response) -> str:
    """The text of an error answer."""
    body: dict[str, Any] = json.loads(response.content)
    return body["detail"]
