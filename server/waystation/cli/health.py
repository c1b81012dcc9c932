"""The HTTP side of a process that only executes runs: health and metrics, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from waystation.api import system
from waystation.api.frame import Application
from waystation.api.routing import Operation
from waystation.app import OpenServices, attach

_SERVED = frozenset({"/", "/ok", "/health", "/ready", "/metrics", "/info"})


def create_health_app(open_services: OpenServices) -> Application:
    """Like `waystation.app.create_app`, with the routes for probes and scrapers only."""

    routes = [route for route in system.router.routes if isinstance(route, Operation) and route.path in _SERVED]

    @contextlib.asynccontextmanager
    async def lifespan(app: Application) -> AsyncGenerator[None]:
        async with open_services() as services:
            attach(app, services)
            app.serve(routes)
            app.prefix = ""  # probes go to the process itself, not through what stands before the API
            yield

    return Application(routes, lifespan=lifespan)
