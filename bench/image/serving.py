"""A container of the image, without Docker: every file system read-only, uid 10001, no capability, no new privilege."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.image.stages import Stage
from bench.servers import free_port
from waystation_db.embedded import EmbeddedPostgres

_START_S = 300.0
_PROJECT = Path(__file__).parents[1] / "project"


def serve(image: Path) -> None:
    """Start the entry point on an empty database, let it execute a run, ask for its health, end it by SIGTERM.

    Once with nothing at all that can be written, once with a tmpfs at /tmp, as a cluster gives it.
    """
    # Its port is 5432; an address of its own in the loopback range keeps it apart from others.
    host = f"127.{os.getpid() % 200 + 1}.77.1"
    postgres = EmbeddedPostgres.start(image.parent / "postgres", settings={"listen_addresses": host})
    try:
        uri = f"postgresql://postgres@{host}/postgres?sslmode=disable"
        for writable in (), ("/tmp",):
            _once(Stage(image), uri, writable=writable)
    finally:
        postgres.stop()


def _once(stage: Stage, uri: str, *, writable: tuple[str, ...]) -> None:
    shutil.copytree(_PROJECT, stage.root / "deps" / "agents", dirs_exist_ok=True)
    port = free_port()
    environ = {
        **stage.variables(),
        "DATABASE_URI": uri,
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "HOME": "/home/waystation",
        "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "5",
    }
    log = stage.folder.parent / f"served-{len(writable)}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            _confined(stage, "/api/entrypoint.sh", writable), env=environ, stdout=output, stderr=output
        )
    try:
        _until_answers(port, process, log)
        started = time.monotonic() - began
        answer = _ask(port, "/runs/wait", {"assistant_id": "trivial", "input": {"message": "hello", "messages": []}})
        checked = subprocess.run(_confined(stage, "python /api/healthcheck.py", writable), env=environ)
        assert checked.returncode == 0, "the health check fails"
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        facts = [
            " ".join(line.split())
            for line in status.splitlines()
            if line.startswith(("Uid", "CapEff", "NoNewPrivs", "VmRSS"))
        ]
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert code == 0, f"ended with {code}\n{log.read_text()[-4000:]}"
    shown = ", ".join(writable) or "nothing"
    print(f"writable {shown}: answers after {started:.1f} s (migrated), a run's answer {answer[:80]!r}, SIGTERM -> 0")
    print(f"  {'; '.join(facts)}")


def _confined(stage: Stage, command: str, writable: tuple[str, ...]) -> list[str]:
    root = shlex.quote(str(stage.root))
    tmpfs = [f"mount -t tmpfs -o nosuid,nodev,noexec,size=64m tmpfs {root}{path}" for path in writable]
    frozen = [f"mount -o remount,bind,ro {root}{part}" for part in ("", "/usr", "/usr/local")]
    bare = "setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
    inner = f"cd /deps/agents && ! touch /deps/agents/x /home/waystation/x /var/x 2>/dev/null && exec {command}"
    started = f"exec chroot {root} {bare} /bin/sh -c {shlex.quote(inner)}"
    script = "\n".join([stage.mounts(), *tmpfs, *frozen, started])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


def _until_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"The entry point ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"Nothing answers after {_START_S:.0f} s:\n{log.read_text()[-4000:]}")


def _ask(port: int, path: str, body: object) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, f"{path}: {answer.status} {text}"
    return text
