"""The life of the project's own web application (`http.app`), on the graph loop beside the graphs.

What its lifespan opens (a pool, an HTTP client) belongs to that loop, and graphs may use it. The lifespan is entered
before the first run and the first request, and left after the last; it runs in a task of its own, so that a background
task of the application that fails takes nothing else with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from waystation.catalog import Project
from waystation.catalog.factories import in_thread
from waystation.catalog.http_app import describe_http_app, load_http_app, startup_failure

INSIDE = "waystation.inside"
"""In the scope of a request: what is called at the innermost of the application's own middleware."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpApp:
    """An application that has started. `stack` is its middleware around its routes, with a door to our operations at
    the innermost; `state` what its lifespan yielded, `document` its OpenAPI document."""

    app: Starlette
    stack: ASGIApp
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    document: Mapping[str, Any] | None = None


@contextlib.asynccontextmanager
async def open_http_app(project: Project) -> AsyncGenerator[HttpApp | None]:
    """Load and start what `http.app` names, None without it; stopped at the end of the block. On the graph loop.

    Raises:
        ConfigError: it cannot be loaded, is no application, or its lifespan fails at the start.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
        app = await in_thread(executor, lambda: load_http_app(project))
    if app is None:
        yield None
        return
    try:
        stack = _with_door(app)
    except Exception as error:  # the constructors of the user's middleware
        raise startup_failure(project, error) from error
    started: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()
    life = asyncio.create_task(_live(app, started, leave), name="http.app")
    try:
        await asyncio.wait((life, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            error = asyncio.CancelledError() if life.cancelled() else life.exception()
            raise startup_failure(project, error or RuntimeError("its lifespan ended at once"))
        yield HttpApp(app, stack, started.result(), _document(app))
    finally:
        leave.set()
        await asyncio.wait((life,))
        if started.done():
            _tell(life)


class _Door:
    """Innermost middleware: the request goes to the application's own routes, or back to ours, as INSIDE decides."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope[INSIDE](self._app, scope, receive, send)


def _with_door(app: Starlette) -> ASGIApp:
    """The application's stack with a door in it; the application itself stays as it is. What it does not handle itself
    is told as the API tells it, an unknown path too."""
    with_door = copy.copy(app)
    with_door.exception_handlers = {HTTPException: _in_json, **app.exception_handlers}
    with_door.user_middleware = [*app.user_middleware, Middleware(_Door)]
    return with_door.build_middleware_stack()


async def _in_json(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)


async def _live(app: Starlette, started: asyncio.Future[Mapping[str, Any]], leave: asyncio.Event) -> None:
    async with app.router.lifespan_context(app) as state:
        started.set_result(dict(state or {}))
        await leave.wait()


def _tell(life: asyncio.Task[None]) -> None:
    error = None if life.cancelled() else life.exception()
    if error is not None:  # the boundary of the user's lifespan: the process goes on ending
        log.error("The lifespan of http.app broke off", exc_info=error)


def _document(app: Starlette) -> Mapping[str, Any] | None:
    try:
        return describe_http_app(app)
    except Exception as error:  # the user's routes: what cannot be described is served all the same
        log.warning("http.app makes no OpenAPI document; its routes are left out of ours", exc_info=error)
        return None
