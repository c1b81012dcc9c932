"""Routes about the server itself: health, information, metrics, documentation. None of them asks for credentials."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import HTMLResponse, PlainTextResponse, Response

import waystation
from waystation.api.dependencies import ServicesDep, json_response
from waystation.api.health import check_all, ping_postgres, states_of_models
from waystation.api.long_answer import OpenStreams
from waystation.api.numbers import Numbers
from waystation.api.openapi import page_of
from waystation.api.routing import Router, errors
from waystation.errors import Unavailable
from waystation.services import Services

router = Router(tags=["System"])

LANGGRAPH_VERSION = version("langgraph")


class Health(BaseModel):
    """Answer of a health check."""

    ok: bool
    services: dict[str, str] = {}


class Readiness(BaseModel):
    """Answer of the readiness check: each dependency is `up` or `down`, and the process itself may be `draining`.

    `degraded` names those that are down and without which the process serves all the same. `models` are the targets of
    the policy's failovers, by their breakers: whether models answer never decides.
    """

    ready: bool
    services: dict[str, str]
    degraded: list[str] = []
    models: dict[str, str] = {}


class Info(BaseModel):
    """Versions, and what this server offers."""

    version: str
    langgraph_py_version: str
    flags: dict[str, bool]
    host: dict[str, str | None]


class MetricsObject(BaseModel):
    """Numbers of this server: the queue, requests, workers."""

    queue: dict[str, float | None]
    api: dict[str, list[dict[str, str | int]]]
    workers: dict[str, int]


@router.get("/", response_model=Health, responses=errors(503), summary="Health check", include_in_schema=False)
@router.head("/ok", include_in_schema=False)
@router.get("/ok", response_model=Health, responses=errors(503), summary="Health check")
async def ok(request: Request, services: ServicesDep, check_db: str | None = None) -> Response:
    """Answers when the process does. With `check_db=1` the database is asked first."""
    if _has_no_meta(services):
        return json_response({"ok": True})
    if check_db in ("1", "true", "True"):
        try:
            await ping_postgres(services)
        except Exception as error:  # whatever is wrong with it, the answer is the same
            raise Unavailable("The database does not answer", headers={"Retry-After": "2"}) from error
    return json_response({"ok": True, "services": {}})


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health, summary="Liveness")
async def health() -> Response:
    """The process lives and its loop turns. Asks no dependency: restarting this process would not mend those."""
    return json_response({"ok": True})


@router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness}}, summary="Readiness")
async def ready(request: Request, services: ServicesDep) -> Response:
    """Whether requests should be sent here: 503 while a needed dependency is away or the process is stopping."""
    checks = await check_all(services)
    streams: OpenStreams = request.app.state.streams
    draining = streams.draining or streams.stopping.done()
    is_ready = not draining and all(check.is_up or not check.required for check in checks)
    states = {check.name: "up" if check.is_up else "down" for check in checks}
    if draining:
        states["process"] = "draining"
    headers = {} if is_ready else {"Retry-After": "2"}
    body: dict[str, object] = {"ready": is_ready, "services": states}
    if degraded := [check.name for check in checks if not check.is_up and not check.required]:
        body["degraded"] = degraded
    if models := await states_of_models(services):
        body["models"] = models
    return json_response(body, status_code=200 if is_ready else 503, headers=headers)


@router.get("/info", response_model=Info, summary="Server information")
async def info(services: ServicesDep) -> Response:
    """Versions and what this server offers."""
    http = services.project.http
    flags = {
        "assistants": http is None or not http.disable_assistants,
        "crons": http is None or not http.disable_runs,
        "langsmith": False,
        "strict_resume": True,
        "langsmith_tracing_replicas": False,
        "langsmith_tracing_session_on_runs": False,
    }
    host = {"kind": "self-hosted", "project_id": None, "host_revision_id": None, "revision_id": None, "tenant_id": None}
    return json_response(
        {
            "version": waystation.__version__,
            "langgraph_py_version": LANGGRAPH_VERSION,
            "flags": flags,
            "host": host,
        }
    )


@router.get(
    "/metrics",
    summary="Metrics",
    responses={200: {"model": MetricsObject, "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(
    request: Request,
    format: Annotated[str, Query(description="`json`; anything else gives Prometheus text")] = "prometheus",
) -> Response:
    """Prometheus text, or with `format=json` the queue, the requests and the workers as an object."""
    numbers: Numbers = request.app.state.numbers
    if format == "json":
        return json_response(await numbers.as_json())
    return PlainTextResponse(await numbers.as_text(), media_type="text/plain; version=0.0.4")


@router.get("/openapi.json", summary="OpenAPI document", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The description of every operation."""
    return json_response(request.app.document)


@router.get("/docs", summary="Documentation", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The OpenAPI document as a page that needs nothing from anywhere else."""
    return HTMLResponse(page_of(request.app.document))


def _has_no_meta(services: Services) -> bool:
    http = services.project.http
    return http is not None and http.disable_meta
