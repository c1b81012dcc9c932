"""A collector of OpenTelemetry's traces over HTTP, for tests: keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it came. Ids in hex."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    service: str
    process: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    is_error: bool


class Collector:
    """Spans that have come, and every request's path, headers and body."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.requests.append((path, headers, body))
        if not path.endswith("/v1/traces"):
            return
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            about = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans.extend(_seen(span, about) for span in scope.spans)


@contextmanager
def collecting() -> Generator[Collector]:
    """A collector at `url`, until the block is left."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            match self.headers.get("content-encoding"):
                case "gzip":
                    body = gzip.decompress(body)
                case None:
                    pass
                case "zstd":
                    body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
                case other:
                    raise AssertionError(other)
            collector.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_PATCH = do_POST  # noqa: N815  # the names are the base class's

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _seen(span: Any, resource: dict[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        service=resource["service.name"],
        process=int(resource.get("process.pid") or 0),
        attributes=_values(span.attributes),
        events=[(event.name, _values(event.attributes)) for event in span.events],
        links=[link.span_id.hex() for link in span.links],
        is_error=span.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}
