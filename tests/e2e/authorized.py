"""Servers with auth, and clients that say who they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk import get_client

from live_server import Client
from waystation.auth.api_keys import make_key
from waystation.auth.roles import Role
from waystation_db import api_keys
from waystation_db.pool import Database

PROJECT = Path(__file__).parent.parent / "fixtures" / "projects" / "auth"
"""Its tokens are `<tenant>:<name>`."""


@asynccontextmanager
async def sdk_as(url: str, token: str) -> AsyncGenerator[Client]:
    """The official client with a bearer token."""
    async with get_client(url=url, api_key=None, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def http_as(url: str, token: str | None, **headers: str) -> httpx.AsyncClient:
    """A plain client with a bearer token, or without one."""
    given = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=url, timeout=60, headers=given | headers)


async def new_key(database_uri: str, identity: str, *roles: Role, tenant: str = "default", **options: Any) -> str:
    """A key, as `waystation keys create` makes it."""
    return (await new_keys(database_uri, [(identity, roles)], tenant=tenant, **options))[0]


async def new_keys(
    database_uri: str, wanted: Sequence[tuple[str, Sequence[Role]]], *, tenant: str = "default", **options: Any
) -> list[str]:
    """Several keys of a tenant."""
    made = [make_key(tenant_id=tenant, identity=identity, roles=roles, **options) for identity, roles in wanted]
    async with Database(database_uri, max_size=2, name="keys") as db, db.connection() as conn:
        for key in made:
            await api_keys.create(conn, key.row)
    return [key.text for key in made]


async def all_of(*work: Any) -> list[Any]:
    """What several awaitables give."""
    return list(await asyncio.gather(*work))
