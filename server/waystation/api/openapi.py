"""The OpenAPI document, and a page made of it that loads nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, cast

from fastapi.openapi.utils import get_openapi

import waystation
from waystation.api.routing import Operation

TITLE = "Waystation"
DESCRIPTION = (
    "Threads, runs, assistants and streams of LangGraph graphs. "
    'Errors are `{"detail": text}`; the text names the field. '
    "Times are ISO 8601 in UTC with microseconds."
)

Document = dict[str, Any]
_SCHEMAS = "#/components/schemas/"
_DETAIL = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}ErrorDetail"}}}
_WHOLE = {"schema": {"type": "integer", "minimum": 0}}
_TOO_MANY = {
    "description": "Too many requests; all answers carry the RateLimit headers",
    "headers": {
        "Retry-After": {"description": "Seconds until a request is let through", **_WHOLE},
        "RateLimit-Policy": {"description": "The limits: name, quota, seconds", "schema": {"type": "string"}},
        "RateLimit": {"description": "What is left of each limit, and when it is full", "schema": {"type": "string"}},
        "RateLimit-Limit": {"description": "Requests that the closest limit allows", **_WHOLE},
        "RateLimit-Remaining": {"description": "Requests that are left of it", **_WHOLE},
        "RateLimit-Reset": {"description": "Seconds until it is full again", **_WHOLE},
    },
}
_METHODS = ("get", "post", "put", "patch", "delete")


def describe_api(operations: Sequence[Operation]) -> Document:
    """The OpenAPI 3.1 document of these operations."""
    document = get_openapi(title=TITLE, version=waystation.__version__, description=DESCRIPTION, routes=operations)
    for _, _, operation in _all(document):
        content: dict[str, Any] = operation["responses"].get("200", {}).get("content", {})
        if "text/event-stream" in content and not content.get("application/json", {}).get("schema"):
            content.pop("application/json", None)  # FastAPI's default, which these never answer with
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        if name.startswith("Selected"):  # members that were not asked for are absent, whatever the class says
            for member in schema["properties"].values():
                member.pop("default", None)
    return document


def with_credentials(document: Document, schemes: Mapping[str, Any], required: Sequence[Any]) -> Document:
    """Ours with what has to be shown to come in: security schemes, and which of them are asked for by default."""
    refused = {"description": "No credentials, or none that are any good", "content": _DETAIL}
    if schemes:
        document.setdefault("components", {}).setdefault("securitySchemes", {}).update(schemes)
        document["security"] = list(required)
    for _, _, operation in _all(document):
        if _is_fixed(operation):
            operation["security"] = []
        else:
            operation["responses"].setdefault("401", refused)
            operation["responses"].setdefault("403", {"description": "Not allowed", "content": _DETAIL})
    return document


def with_limits(document: Document) -> Document:
    """Ours where requests are limited: 429, in the shape that the operation's other errors have."""
    for _, _, operation in _all(document):
        if not _is_fixed(operation):
            answers: dict[str, Any] = operation["responses"]
            content: Any = next((answers[status]["content"] for status in ("422", "400") if status in answers), _DETAIL)
            answers.setdefault("429", {**_TOO_MANY, "content": content})
    return document


def with_theirs(document: Document, theirs: Mapping[str, Any]) -> Document:
    """Ours with the operations of the project's own application; what both describe is described as it is served.

    Their schemas get a name of their own where ours has another meaning.
    """
    taken = document.get("components", {}).get("schemas", {})
    clashing = {
        name: f"Custom{name}"
        for name, schema in theirs.get("components", {}).get("schemas", {}).items()
        if name in taken and taken[name] != schema
    }
    renamed = cast(Document, _renamed(theirs, clashing))
    paths: dict[str, dict[str, Any]] = document["paths"]
    for path, item in renamed.get("paths", {}).items():
        paths[path] = {**item, **{k: v for k, v in paths.get(path, {}).items() if k not in item or _is_fixed(v)}}
    for kind, members in renamed.get("components", {}).items():
        ours = document.setdefault("components", {}).setdefault(kind, {})
        for name, member in members.items():
            ours.setdefault(clashing.get(name, name) if kind == "schemas" else name, member)
    return document


def _is_fixed(operation: Any) -> bool:
    return isinstance(operation, dict) and "System" in cast(dict[str, Any], operation).get("tags", ())


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The same with every reference to a renamed schema following it."""
    match value:
        case dict():
            return {k: _renamed(v, names) for k, v in cast(dict[str, Any], value).items()}
        case list():
            return [_renamed(v, names) for v in cast(list[Any], value)]
        case str() if value.startswith(_SCHEMAS) and value.removeprefix(_SCHEMAS) in names:
            return _SCHEMAS + names[value.removeprefix(_SCHEMAS)]
        case _:
            return value


def page_of(document: Document) -> str:
    """The document as one HTML page: every operation with its parameters, body and answers."""
    page = (files("waystation.api") / "docs.html").read_text(encoding="utf-8")
    return (
        page.replace("{{title}}", escape(f"{document['info']['title']} {document['info']['version']}"))
        .replace("{{description}}", escape(document["info"]["description"]))
        .replace("{{contents}}", "".join(_contents(document)))
        .replace("{{operations}}", "".join(_operations(document)))
        .replace("{{schemas}}", "".join(_schemas(document)))
    )


def _by_tag(document: Document) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for method, path, operation in _all(document):
        groups.setdefault(operation.get("tags", ["Other"])[0], []).append((method, path, operation))
    return groups


def _all(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield method, path, item[method]


def _contents(document: Document) -> Iterator[str]:
    for tag, operations in _by_tag(document).items():
        yield f"<h3>{escape(tag)}</h3><ul>"
        for method, path, operation in operations:
            yield f'<li><a href="#{_anchor(operation)}"><b class="{method}">{method}</b> {escape(path)}</a></li>'
        yield "</ul>"


def _operations(document: Document) -> Iterator[str]:
    for tag, operations in _by_tag(document).items():
        yield f"<h2>{escape(tag)}</h2>"
        for method, path, operation in operations:
            yield f'<section id="{_anchor(operation)}">'
            yield f'<h3><b class="{method}">{method}</b> <code>{escape(path)}</code></h3>'
            yield f"<p><strong>{escape(operation.get('summary', ''))}</strong></p>"
            yield f"<p>{escape(operation.get('description', ''))}</p>"
            yield from _parameters(operation)
            yield from _body(operation)
            yield from _responses(operation)
            yield "</section>"


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    parameters = operation.get("parameters", [])
    if not parameters:
        return
    yield "<table><tr><th>parameter</th><th>in</th><th>type</th><th></th></tr>"
    for parameter in parameters:
        name = escape(parameter["name"]) + ("*" if parameter.get("required") else "")
        shape = _shape(parameter.get("schema", {}))
        note = escape(parameter.get("description", ""))
        yield f"<tr><td><code>{name}</code></td><td>{parameter['in']}</td><td>{shape}</td><td>{note}</td></tr>"
    yield "</table>"


def _body(operation: dict[str, Any]) -> Iterator[str]:
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body <code>{escape(media)}</code>: {_shape(content.get('schema', {}))}</p>"


def _responses(operation: dict[str, Any]) -> Iterator[str]:
    yield "<ul>"
    for status, response in operation.get("responses", {}).items():
        shapes = [_shape(content.get("schema", {})) for content in response.get("content", {}).values()]
        note = escape(response.get("description", ""))
        yield f"<li><b>{escape(status)}</b> {note} {' or '.join(shape for shape in shapes if shape)}</li>"
    yield "</ul>"


def _schemas(document: Document) -> Iterator[str]:
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f'<details id="schema-{escape(name)}"><summary>{escape(name)}</summary><pre>{text}</pre></details>'


def _shape(schema: dict[str, Any]) -> str:
    """A schema in a few words, with a link where it has a name."""
    if ref := schema.get("$ref"):
        name = escape(ref.rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(shape for shape in map(_shape, options) if shape)
    if values := schema.get("enum"):
        return escape(" | ".join(json.dumps(value) for value in values))
    if schema.get("type") == "array":
        return f"list of {_shape(schema.get('items', {})) or 'anything'}"
    kind, form = schema.get("type", ""), schema.get("format", "")
    return escape(f"{kind} ({form})" if form else str(kind))


def _anchor(operation: dict[str, Any]) -> str:
    return escape(operation.get("operationId", ""), quote=True)
