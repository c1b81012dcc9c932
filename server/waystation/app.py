"""The application: which routes there are, and what is opened and closed with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

from waystation.api import (
    a2a,
    assistants,
    audit,
    crons,
    guards,
    guards_kill,
    guards_levels,
    mcp,
    openai_chat,
    openai_responses,
    runs,
    state,
    stateless,
    store,
    system,
    thread_events,
    threads,
    webhooks,
)
from waystation.api.cors import EXPOSED_HEADERS, LIMIT_HEADERS, Cors, CorsRules
from waystation.api.custom_app import CustomApp
from waystation.api.frame import Application
from waystation.api.headers import HeaderRules
from waystation.api.long_answer import OpenStreams
from waystation.api.numbers import Numbers
from waystation.api.open_files import room_for_streams
from waystation.api.project_routes import ProjectRoutes
from waystation.api.request_limits import RequestLimits
from waystation.api.routing import Operation
from waystation.catalog.keys import HttpKeys
from waystation.catalog.keys_own import OwnHttpKeys
from waystation.runs.assistants import ensure_default_assistants
from waystation.services import Services
from waystation.services.gates import credentials
from waystation.telemetry.counting import watch_loop_lag

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.api.request_audit import RequestAudit

OpenServices = Callable[[], AbstractAsyncContextManager[Services]]

ROUTERS = (
    system.router,
    assistants.router,
    threads.router,
    state.router,
    runs.router,
    stateless.router,
    thread_events.router,
    crons.router,
    webhooks.router,
    audit.router,
    guards_kill.router,
    guards.router,
    guards_levels.router,
    store.router,
    mcp.router,
    a2a.router,
    openai_chat.router,
    openai_responses.router,
)

_SWITCHES = {
    "disable_assistants": ("Assistants",),
    "disable_threads": ("Threads", "Thread state"),
    "disable_runs": ("Runs", "Stateless runs", "Thread events", "Crons"),
    "disable_webhooks": ("Webhooks",),
    "disable_store": ("Store",),
    "disable_mcp": ("MCP",),
    "disable_a2a": ("A2A",),
}
"""Switches of `http` in the project, and the tags of the operations that they take away."""

_META = frozenset({"/", "/info", "/metrics", "/docs", "/openapi.json"})
"""What `http.disable_meta` takes away. Health checks stay."""


def create_app(open_services: OpenServices) -> Application:
    """The ASGI application. `open_services` is entered on the server's loop at start and left when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Application) -> AsyncGenerator[None]:
        async with open_services() as services:
            await ensure_default_assistants(services)  # runs that wait for the API may ask for them at once
            attach(app, services)
            app.custom = custom_app(app, services)
            lag = asyncio.create_task(watch_loop_lag("api", services.db))
            try:
                yield
            finally:
                app.stop_streams()
                lag.cancel()
                await asyncio.wait([lag])

    return Application(operations(), lifespan=lifespan)


def operations() -> list[Operation]:
    """Every operation of the API."""
    routes: list[BaseRoute] = [route for router in ROUTERS for route in router.routes]
    return [route for route in routes if isinstance(route, Operation)]


def is_served(operation: Operation, http: HttpKeys | None, own: OwnHttpKeys | None = None) -> bool:
    """Whether the project's `http` section, and our `waystation.http`, leave the operation in."""
    if own is not None and own.disable_openai and "OpenAI" in operation.tags:
        return False
    if http is None:
        return True
    off = {tag for name, tags in _SWITCHES.items() if getattr(http, name) for tag in tags}
    return not off.intersection(operation.tags) and not (http.disable_meta and operation.path in _META)


def attach(app: Application, services: Services) -> None:
    """Give the application what its routes need, and apply what the project says of HTTP."""
    limit = room_for_streams(services.settings.max_stream_readers)
    app.state.services = services
    app.state.streams = OpenStreams(limit=limit, stopping=asyncio.get_running_loop().create_future())
    app.state.numbers = Numbers(services)
    http_keys = services.project.http or HttpKeys()
    app.state.configurable_headers = HeaderRules.of(http_keys.configurable_headers)
    app.state.logging_headers = HeaderRules.of(http_keys.logging_headers)
    app.gate = services.gate
    app.limits = None if services.limits is None else RequestLimits(services.limits)
    app.audit = _request_audit(services)
    app.tracing = services.tracing
    app.logs_access = services.settings.access_log
    app.credentials = credentials(services)
    app.cors = Cors(_cors_rules(services))
    http, own = services.project.http, services.project.waystation.http
    app.serve(operation for operation in operations() if is_served(operation, http, own))
    app.prefix = (http and http.mount_prefix) or services.settings.mount_prefix or ""
    services.loopback.connect(app, prefix=app.prefix)


def attach_inside(services: Services) -> None:
    """Let the graphs of a process that serves no API reach one all the same: the operations, without a server."""
    attach(Application(operations(), lifespan=lambda _: contextlib.nullcontext()), services)


def custom_app(app: Application, services: Services) -> CustomApp | None:
    """The project's own application beside the operations of `app`; None without one."""
    found = services.graphs.side.http_app
    if found is None:
        return None
    routes = ProjectRoutes(found.app.routes, app.operations, app.table.find)
    return CustomApp(found, services, app, routes)


def _request_audit(services: Services) -> RequestAudit | None:
    keys = services.project.waystation.audit
    if services.audit is None or keys is None:
        return None
    from waystation.api.request_audit import request_audit

    return request_audit(services.audit, keys)


def _cors_rules(services: Services) -> CorsRules:
    http = services.project.http
    if http is not None and http.cors is not None:
        return CorsRules(**http.cors.model_dump())
    shown = EXPOSED_HEADERS if services.limits is None else (*EXPOSED_HEADERS, *LIMIT_HEADERS)
    return CorsRules(allow_origins=services.settings.cors_allow_origins, expose_headers=shown)
