"""Threads as a client sees them: the real routes, use cases, Postgres and graph loop; only the worker is left out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
from langchain_core.runnables import RunnableConfig

from api_services import BASIC, api_services
from integration.catalog_projects import clean_imports
from waystation.api import state, threads
from waystation.api.frame import Application
from waystation.api.routing import Operation
from waystation.services import GraphSide, Services
from waystation.services.wakeups import Wakeups
from waystation_db.rows import CancelAction, ClaimedRun, RunKey


@dataclass
class Recorder:
    """Stands where the process's worker would be, and remembers whom it was told to stop."""

    stopped: list[RunKey] = field(default_factory=list[RunKey])
    worker_id: str = "recorder"

    def reserve(self) -> bool:
        return False

    def release(self) -> None: ...

    def start(self, run: ClaimedRun) -> None: ...

    def work_available(self) -> None: ...

    def stop_run(self, key: RunKey, action: CancelAction, reason: str | None) -> None:
        self.stopped.append(key)


@dataclass(frozen=True)
class World:
    """What a test of threads talks to."""

    http: httpx.AsyncClient
    services: Services
    worker: Recorder

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The JSON of an answer that must have this status."""
        answer = await self.http.request(method, path, json=body) if body is not None else await self.bare(method, path)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def bare(self, method: str, path: str) -> httpx.Response:
        return await self.http.request(method, path)

    async def thread(self, **members: Any) -> str:
        """The id of a new thread."""
        return (await self.ask("POST", "/threads", members))["thread_id"]

    async def ran(self, graph_id: str, given: Any, thread_id: str | None = None) -> str:
        """The id of a thread on which the graph ran, as after a run, but for the thread's row."""
        thread_id = thread_id or await self.thread(metadata={"graph_id": graph_id})

        async def run(side: GraphSide) -> None:
            config: dict[str, Any] = {
                "configurable": {"thread_id": thread_id, "checkpoint_ns": "", "__pregel_checkpointer": side.saver}
            }
            async with side.catalog.open(graph_id, access="threads.create_run", config={}) as graph:
                await graph.ainvoke(given, cast("RunnableConfig", config))  # pyright: ignore[reportUnknownMemberType]  # untyped there

        await self.services.graphs.call(run)
        return thread_id

    async def make_busy(self, thread_id: str) -> str:
        """The id of a running run that the thread has from now on."""
        run_id = "00000000-0000-7000-8000-000000000001"
        async with self.services.db.connection() as conn, conn.transaction():
            await conn.execute(
                "update thread set status = 'busy', active_runs = 1, resting_status = status where thread_id = %s",
                [thread_id],
            )
            await conn.execute(
                "insert into run (thread_id, run_id, assistant_id, graph_id, status, kwargs, lease_expires_at)"
                " values (%s, %s, gen_random_uuid(), 'g', 'running', '{}', now())",
                [thread_id, run_id],
            )
        return run_id


@asynccontextmanager
async def world(database_uri: str, *, project: Path = BASIC) -> AsyncGenerator[World]:
    """The graphs of `project` behind the thread and state routes."""
    with clean_imports():
        async with api_services(database_uri, project=project) as opened:
            worker = Recorder()
            services = replace(opened, wakeups=Wakeups(worker))
            async with httpx.AsyncClient(transport=_transport(services), base_url="http://test") as http:
                yield World(http, services, worker)


def _transport(services: Services) -> httpx.ASGITransport:
    @asynccontextmanager
    async def lifespan(_: Application) -> AsyncGenerator[None]:
        yield

    routes = [*threads.router.routes, *state.router.routes]
    app = Application([route for route in routes if isinstance(route, Operation)], lifespan=lifespan)
    app.state.services = services
    return httpx.ASGITransport(app=cast("Any", app))
