"""A server that speaks as much S3 as backups need: put, get, list page by page. Buckets are there when written to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

PAGE = 3


class _Objects(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if "aws-chunked" in self.headers.get("content-encoding", ""):
            data = _unchunked(data)
        self.objects[urlsplit(self.path).path] = data
        self._answer(200, b"", etag=hashlib.md5(data).hexdigest())

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "list-type" in query:
            self._list(url.path, query)
        elif url.path in self.objects:
            self._answer(200, self.objects[url.path])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>there is none</Message></Error>")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        start = bucket.rstrip("/") + "/"
        keys = sorted(path.removeprefix(start) for path in self.objects if path.startswith(start))
        found = [k for k in keys if k.startswith(query.get("prefix", "")) and k > query.get("continuation-token", "")]
        page = found[:PAGE]
        more = len(found) > PAGE
        contents = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{contents}{token}</ListBucketResult>"
        self._answer(200, body.encode())

    def _answer(self, status: int, body: bytes, *, etag: str = "e") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{etag}"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def _unchunked(data: bytes) -> bytes:
    """The content of a body in chunks that are signed or followed by a checksum."""
    found = b""
    while data:
        head, _, data = data.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if size == 0:
            break
        found, data = found + data[:size], data[size + 2 :]
    return found


@contextmanager
def s3_server() -> Generator[dict[str, str]]:
    """Serve until the block is left; the environment with which boto3 finds it."""
    handler = type("Objects", (_Objects,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
