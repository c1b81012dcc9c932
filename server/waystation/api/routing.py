"""Routes as FastAPI declares them, served by a plan that is worked out once.

FastAPI reads the signature of a route (path, query, header, body, dependencies) and describes it in the OpenAPI
document. At run time its generic solver would cost several times what our routes do themselves, so a route compiles
what its signature needs into a short list of steps. Bodies are read by `limits`, stricter than the framework.

A route takes at most one body, and dependencies whose only parameter is the request.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response

from waystation.api.dependencies import services_of
from waystation.api.failures import answer_to
from waystation.api.limits import parse_json, read_body
from waystation.errors import InvalidRequest

MAX_ERROR_TEXT = 1000
MAX_ERRORS_SHOWN = 5

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


class ErrorDetail(BaseModel):
    """The body of every 4xx."""

    detail: str


class Operation(APIRoute):
    """One operation of the API: FastAPI's declaration, our plan."""

    run: Callable[[Request], Coroutine[Any, Any, Response]]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        self.run = _compile(self.dependant)
        return self.run

    def failed(self, error: Exception) -> Response:
        """The answer when the operation raised."""
        return answer_to(error)


def operation_id_of(route: APIRoute) -> str:
    """A name for generated clients: the function's, and of what, where several tags have the same."""
    return f"{route.name}_stateless" if "Stateless runs" in route.tags else route.name


class Router(APIRouter):
    """A router whose routes are operations; every one of them may answer 422."""

    def __init__(self, *, tags: list[str]) -> None:
        invalid: dict[int | str, dict[str, Any]] = {422: {"model": ErrorDetail, "description": "Invalid request"}}
        super().__init__(tags=list(tags), route_class=Operation, responses=invalid, redirect_slashes=False)
        self.generate_unique_id_function = operation_id_of


_EVENT: dict[str, Any] = {
    "title": "Event",
    "description": "One event of the stream.",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "description": "Its name: `metadata`, a stream mode, `error`."},
        "data": {"type": "string", "description": "JSON on one line."},
        "id": {"type": "string", "description": "For `Last-Event-ID`; only of resumable runs."},
    },
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": _EVENT}}}
}
"""The `responses` of an operation that answers with a stream of events and nothing else."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer these 4xx or 5xx."""
    return {status: {"model": ErrorDetail} for status in statuses}


def _compile(dependant: Dependant) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    endpoint = cast(Endpoint, dependant.call)  # an APIRoute always has one
    if not inspect.iscoroutinefunction(endpoint):
        raise TypeError(f"{endpoint} must be a coroutine function")
    dependencies = [_dependency(sub) for sub in dependant.dependencies]
    read = _body_reader(dependant)
    query = _query_reader(dependant)
    paths = [_Scalar.of(field, "path") for field in dependant.path_params]
    headers = [_Scalar.of(field, "header") for field in dependant.header_params]
    request_name = dependant.request_param_name

    async def handle(request: Request) -> Response:
        values: dict[str, Any] = {}
        for name, call in dependencies:
            values[name] = await call(request)
        for path in paths:
            path.take(values, request.path_params)
        if query is not None:
            query(values, request)
        for header in headers:
            header.take(values, request.headers)
        if read is not None:
            await read(values, request)
        if request_name is not None:
            values[request_name] = request
        return await endpoint(**values)

    return handle


@dataclass(frozen=True, slots=True)
class _Scalar:
    """A parameter that is one value: in the path, or a header."""

    name: str
    alias: str
    where: str
    required: bool
    default: Any
    validate: Callable[[Any], Any]

    @classmethod
    def of(cls, field: Any, where: str) -> _Scalar:
        """From FastAPI's ModelField, which has no public import."""
        info = field.field_info
        alias = field.alias if field.alias != field.name or where == "path" else field.name.replace("_", "-")
        required = info.is_required()
        return cls(field.name, alias, where, required, None if required else field.get_default(), _validator(info))

    def take(self, values: dict[str, Any], source: Mapping[str, str]) -> None:
        given = source.get(self.alias)
        if given is None:
            if self.required:
                raise InvalidRequest(f"{self.where}.{self.alias}: Field required")
            values[self.name] = self.default
            return
        try:
            values[self.name] = self.validate(given)
        except ValidationError as error:
            wrong = [{**e, "loc": (self.where, self.alias)} for e in error.errors(include_url=False)]
            raise InvalidRequest(describe(None, wrong)) from None


def _validator(info: Any) -> Callable[[Any], Any]:
    form = cast(Any, Annotated)[(info.annotation, "parameter", *info.metadata)]  # made at run time: Any to pyright
    return TypeAdapter[Any](form).validator.validate_python


def _dependency(sub: Dependant) -> tuple[str, Callable[[Request], Awaitable[Any]]]:
    call, name, takes = sub.call, sub.name, sub.request_param_name
    others = sub.dependencies or sub.query_params or sub.path_params or sub.header_params or sub.body_params
    if call is None or name is None or takes is None or others or not inspect.iscoroutinefunction(call):
        raise TypeError(f"the dependency {call} must be a coroutine function whose only parameter is the request")
    return name, cast(Callable[[Request], Awaitable[Any]], call)


def _query_reader(dependant: Dependant) -> Callable[[dict[str, Any], Request], None] | None:
    fields = dependant.query_params
    if not fields:
        return None
    needed = any(field.field_info.is_required() for field in fields)

    def query(values: dict[str, Any], request: Request) -> None:
        raw: bytes = request.scope["query_string"]
        if not raw and not needed:
            for field in fields:
                values[field.name] = field.get_default()
            return
        _take(values, request_params_to_args(fields, request.query_params))

    return query


def _body_reader(dependant: Dependant) -> Callable[[dict[str, Any], Request], Awaitable[None]] | None:
    if not dependant.body_params:
        return None
    if len(dependant.body_params) > 1:
        raise TypeError(f"{dependant.call} takes more than one body")
    field = dependant.body_params[0]
    name, info = field.name, cast(Any, field.field_info)  # FieldInfo.annotation is a bare type
    validate = _validator(info)
    optional = not info.is_required()

    async def read(values: dict[str, Any], request: Request) -> None:
        raw = await read_body(request, services_of(request).settings.max_body_bytes)
        if optional and not raw:
            values[name] = info.get_default(call_default_factory=True)
            return
        try:
            values[name] = validate(parse_json(raw))
        except ValidationError as error:
            raise InvalidRequest(describe("body", error.errors(include_url=False, include_input=False))) from None

    return read


def _take(values: dict[str, Any], result: tuple[Mapping[str, Any], list[Any]]) -> None:
    found, wrong = result
    if wrong:
        raise InvalidRequest(describe(None, wrong))
    values.update(found)


def describe(where: str | None, wrong: Iterable[Mapping[str, Any]]) -> str:
    """One line for a client: which field, and what is expected there. Never the value that was sent."""
    texts: list[str] = []
    for error in wrong:
        if error["type"] == "uuid_of" and not where:
            texts.append(error["msg"])
            continue
        steps = (where, *error["loc"]) if where else error["loc"]
        # A union adds what it tried, such as `list[str]`.
        place = ".".join(str(step)[:80] for step in steps if not str(step).endswith("]"))
        texts.append(f"{place}: {error['msg']}")
    shown = "; ".join(texts[:MAX_ERRORS_SHOWN])
    more = len(texts) - MAX_ERRORS_SHOWN
    return shown[:MAX_ERROR_TEXT] + (f"; and {more} more" if more > 0 else "")


__all__ = ["STREAMED", "ErrorDetail", "Operation", "Router", "describe", "errors"]
