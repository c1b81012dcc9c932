"""`waystation bench` against a live server: what it counts, writes, leaves behind and refuses."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from live_server import LiveServer
from waystation.cli.bench_load import Load, Mode, Sample, Threads, drive

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]  # processes, each of which imports everything

BENCH = [sys.executable, "-m", "waystation.cli", "bench", "--no-progress"]


def nothing(_: Sample) -> None:
    """Nobody watches."""


@pytest.mark.parametrize("mode", ["wait", "stream", "background"])
@pytest.mark.parametrize("threads", ["none", "one", "new"])
async def test_every_run_is_counted_once_and_nothing_is_left(
    live_server: LiveServer, mode: Mode, threads: Threads
) -> None:
    load = Load(live_server.url, "steps", mode=mode, threads=threads, input={"n": 0}, clients=3, runs=7)
    seen: list[Sample] = []
    outcome = await drive(load, on_sample=seen.append)
    assert [sample.error for sample in outcome.samples] == [None] * 7
    assert seen == outcome.samples
    assert all(0 <= sample.began_s <= sample.total_s <= outcome.took_s for sample in seen)
    assert all((sample.first_s is not None and sample.events > 0) == (mode == "stream") for sample in seen)
    async with httpx.AsyncClient(base_url=live_server.url, timeout=60) as client:
        assert (await client.post("/threads/count", json={"metadata": {"bench": True}})).json() == 0


@pytest.mark.parametrize("mode", ["wait", "stream", "background"])
async def test_a_run_that_fails_is_an_error(live_server: LiveServer, mode: Mode) -> None:
    outcome = await drive(Load(live_server.url, "fail", mode=mode, input={}, clients=2, runs=2), on_sample=nothing)
    assert [bool(sample.error) for sample in outcome.samples] == [True, True]


async def test_a_run_without_an_end_is_an_error(live_server: LiveServer) -> None:
    slow = {"n": 50, "delay": 1}
    load = Load(live_server.url, "slow", mode="stream", input=slow, clients=1, runs=1, timeout_s=0.5)
    outcome = await drive(load, on_sample=nothing)
    assert [sample.error for sample in outcome.samples] == ["no end within 0.5 s"]


async def test_waiting_for_a_client_counts_as_latency_where_runs_come_at_a_rate(live_server: LiveServer) -> None:
    slow = {"n": 1, "delay": 0.2}
    load = Load(live_server.url, "slow", input=slow, clients=1, runs=4, rate=1000)
    samples = (await drive(load, on_sample=nothing)).samples
    assert [sample.error for sample in samples] == [None] * 4
    assert [sample.total_s for sample in samples] == sorted(sample.total_s for sample in samples)
    assert samples[-1].total_s > 0.8, "four runs one after another, all due at the beginning"


async def test_it_ends_when_its_time_is_over(live_server: LiveServer) -> None:
    load = Load(live_server.url, "steps", input={"n": 0}, clients=2, seconds=0.5)
    outcome = await asyncio.wait_for(drive(load, on_sample=nothing), 60)
    assert outcome.samples
    assert all(sample.due_s < 0.5 for sample in outcome.samples)


def test_reports_are_written_and_hold_no_header(live_server: LiveServer, tmp_path: Path) -> None:
    page, data, picture = tmp_path / "new" / "bench.html", tmp_path / "bench.json", tmp_path / "bench.png"
    command = [*BENCH, "--url", live_server.url, "-g", "steps", "--input", '{"n": 0}', "--runs", "5", "-n", "2"]
    options = ["--report", str(page), "--report", str(data), "-H", "x-api-key: s3cret", "--mode", "stream"]
    done = subprocess.run([*command, *options, "--report", str(picture)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "5 runs of 'steps' by stream, 2 clients" in done.stdout
    told = json.loads(data.read_text())
    assert (told["summary"]["runs"], told["summary"]["failed"], len(told["samples"])) == (5, 0, 5)
    assert told["server"]["flags"]["assistants"]
    assert page.read_text().count("<svg") == 3
    assert "s3cret" not in page.read_text() + data.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert done.stderr == ""


def test_ctrl_c_reports_what_was_measured(live_server: LiveServer) -> None:
    command = [*BENCH, "--url", live_server.url, "-g", "slow", "--input", '{"n": 1, "delay": 0.05}', "--seconds", "60"]
    with subprocess.Popen([*command, "-n", "2"], stdout=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(_a_run_began(live_server))
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "runs of 'slow' by wait" in output


async def _a_run_began(server: LiveServer) -> None:
    """Wait for some runs of the bench to have come by."""
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        before = await _requests(client)
        while await _requests(client) < before + 5:  # noqa: ASYNC110 - a counter of another process
            await asyncio.sleep(0.05)


async def _requests(client: httpx.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    waits = [line for line in lines if line.startswith("waystation_http_requests_total") and "/runs/wait" in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in waits)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--input", "{"], 2, "--input is not JSON"),
        (["--input", "@nowhere.json"], 2, "@nowhere.json: No such file"),
        (["--run-config", "[]"], 2, "--run-config must be a JSON object"),
        (["--header", "nothing"], 2, "expected `name: value`"),
        (["--url", "ftp://x"], 2, "begins neither with http:// nor with https://"),
        (["--report", "bench.pdf"], 2, "expected a name that ends with .html, .json or .png"),
        (["--url", "http://127.0.0.1:9"], 1, "http://127.0.0.1:9 does not answer"),
        (["--url", "http://"], 2, "--url http://: it names no host"),
        (["--url", "http://127.0.0.1:99999"], 2, "--url http://127.0.0.1:99999: Port out of range"),
        (["--url", "http://[::1"], 2, "--url http://[::1: Invalid IPv6 URL"),
        (["--url", "http://127.0.0.1:9/?a=b"], 2, "expected no query"),
        (["--header", "bad name: x"], 2, "--header 'bad name': expected `name: value`"),
        (["--header", "x-api-key: s\u00e9cret"], 2, "--header 'x-api-key': its value may hold printable ASCII only"),
        (["--input", '{"n": NaN}'], 2, "--input is not JSON: it holds NaN"),
        (["--max-error-rate", "nan"], 2, "--max-error-rate nan: expected a finite number"),
        (["--rate", "nan"], 2, "--rate nan: expected a finite number"),
        (["--timeout", "inf"], 2, "--timeout inf: expected a finite number"),
        (["--seconds", "nan"], 2, "--seconds nan: expected a finite number"),
        (["--report", "/proc/nowhere/bench.html"], 2, "--report /proc/nowhere/bench.html: No such file"),
    ],
)
def test_what_cannot_be_measured_is_told(options: list[str], code: int, said: str) -> None:
    done = subprocess.run([*BENCH, *options], capture_output=True, text=True, timeout=110)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_picture_without_its_library_is_refused_before_the_load(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['matplotlib'] = None; from waystation.cli import main; main()"
    options = ["bench", "--url", "http://127.0.0.1:9", "--report", str(tmp_path / "bench.png")]
    done = subprocess.run([sys.executable, "-c", blocked, *options], capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (
        2,
        "Error: a picture needs matplotlib: pip install 'waystation[plots]'\n",
    )


@pytest.mark.parametrize("mode", ["wait", "stream", "background"])
@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (200, "application/json", "[1]", "GET /info answered with no JSON object: '[1]'"),
        (200, "text/html", "<h1>hello</h1>", "GET /info answered with no JSON: '<h1>hello</h1>'"),
        (302, "text/html", "", "HTTP 302: it leads to 'https://elsewhere.example.com/'"),
        (500, "text/plain", "oh", "HTTP 500: oh"),
    ],
)
def test_a_server_of_another_kind_is_told_by_what_it_answered(
    mode: str, status: int, kind: str, body: str, said: str
) -> None:
    with _answering(lambda _: (status, kind, body)) as url:
        options = ["--url", url, "--mode", mode, "--threads", "new"]
        done = subprocess.run([*BENCH, *options], capture_output=True, text=True, timeout=110)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/html", "<h1>maintenance</h1>", "POST /runs/stream answered with text/html, not with events"),
        ("text/event-stream", "", "the stream ended without an event"),
        ("text/event-stream", 'event: error\ndata: {"error":"E","message":"m"}\n\n', "error event: E: m"),
    ],
)
async def test_a_stream_that_is_none_is_no_success(kind: str, body: str, said: str) -> None:
    with _answering(lambda _: (200, kind, body)) as url:
        outcome = await drive(Load(url, "agent", mode="stream", clients=1, runs=1), on_sample=nothing)
    assert [sample.error for sample in outcome.samples] == [said]


@pytest.mark.parametrize("body", ["[]", "null", "{}"])
async def test_a_thread_without_an_id_is_an_error(body: str) -> None:
    with _answering(lambda _: (200, "application/json", body)) as url:
        outcome = await drive(Load(url, "agent", threads="new", clients=1, runs=1), on_sample=nothing)
    (sample,) = outcome.samples
    assert str(sample.error).startswith("POST /threads answered with")


async def test_failed_background_runs_leave_no_threads(live_server: LiveServer) -> None:
    async with httpx.AsyncClient(base_url=live_server.url, timeout=60) as client:

        async def threads() -> int:
            return (await client.post("/threads/count", json={"status": "error"})).json()

        before = await threads()
        load = Load(live_server.url, "fail", mode="background", input={}, clients=2, runs=4)
        outcome = await drive(load, on_sample=nothing)
        assert [bool(sample.error) for sample in outcome.samples] == [True] * 4
        assert await threads() == before


@contextmanager
def _answering(answer: Callable[[str], tuple[int, str, str]]) -> Generator[str]:
    """A server that answers every request likewise: status, content type, body, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            status, kind, body = answer(self.path)
            self.send_response(status)
            for name, value in (("content-type", kind), ("content-length", str(len(body)))):
                self.send_header(name, value)
            if status == 302:
                self.send_header("location", "https://elsewhere.example.com/")
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_more_errors_than_allowed_are_an_exit_code(live_server: LiveServer) -> None:
    done = subprocess.run(
        [*BENCH, "--url", live_server.url, "-g", "nobody"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 1
    assert "a first run of 'nobody'" in done.stderr
    assert "Invalid assistant" in done.stderr
