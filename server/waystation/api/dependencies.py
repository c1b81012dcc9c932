"""What routes ask for: the caller, the process's services, checked ids; and the answers that they give.

@router.get("/threads/{thread_id}")
async def get_thread(thread_id: ThreadId, caller: CallerDep, services: ServicesDep) -> Response:
    return JSONBytes(await threads.get(services.db, caller.tenant_id, thread_id=thread_id))
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from waystation.auth import Principal, caller_of
from waystation.services import Services
from waystation.services.encryption_handlers import enter_context

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_SCHEMA = WithJsonSchema({"type": "string", "format": "uuid"})


def _uuid_of(kind: str) -> Callable[[str], str]:
    """A validator that takes any spelling of a UUID and returns the canonical one."""

    def check(value: str) -> str:
        if _CANONICAL.fullmatch(value):
            return value
        try:
            return str(uuid.UUID(value))
        except ValueError:
            raise PydanticCustomError("uuid_of", "Invalid {kind} ID: must be a UUID", {"kind": kind}) from None

    return check


ThreadId = Annotated[str, AfterValidator(_uuid_of("thread")), _UUID_SCHEMA]
RunId = Annotated[str, AfterValidator(_uuid_of("run")), _UUID_SCHEMA]
AssistantId = Annotated[str, AfterValidator(_uuid_of("assistant")), _UUID_SCHEMA]
CronId = Annotated[str, AfterValidator(_uuid_of("cron")), _UUID_SCHEMA]
DeliveryId = Annotated[str, AfterValidator(_uuid_of("delivery")), _UUID_SCHEMA]
KillId = Annotated[str, AfterValidator(_uuid_of("kill")), _UUID_SCHEMA]
CheckpointId = Annotated[str, AfterValidator(_uuid_of("checkpoint")), _UUID_SCHEMA]


class RequestBody(BaseModel):
    """Base of the models of request bodies: unknown members ignored, nothing coerced, null only where declared."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


def services_of(request: Request) -> Services:
    """The services that the application opened at start."""
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_of(request)


async def _caller(request: Request) -> Principal:
    if cipher := services_of(request).db.cipher:
        await enter_context(cipher, request.headers.get("x-encryption-context"), request.scope.get("user"))
    return caller_of(request.scope)


ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[Principal, Depends(_caller)]


class JSONBytes(Response):
    """An answer whose JSON is already encoded, as SQL returns it."""

    media_type = "application/json"

    def __init__(self, content: bytes, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code=status_code, headers=headers)


def json_response(value: Any, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> JSONBytes:
    """An answer of a value that `orjson` can encode."""
    return JSONBytes(orjson.dumps(value), status_code=status_code, headers=headers)


def no_content() -> Response:
    """204 with an empty body: what deletes answer."""
    return Response(status_code=204)


PAGING_HEADERS = ("X-Pagination-Total", "X-Pagination-Next")


def paging_headers(*, offset: int, returned: int, more: bool) -> dict[str, str]:
    """The two headers of a search's answer. What the protocol calls total is the number known to exist up to here."""
    headers = {"X-Pagination-Total": str(offset + returned + (1 if more else 0))}
    if more:
        headers["X-Pagination-Next"] = str(offset + returned)
    return headers
