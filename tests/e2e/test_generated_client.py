"""A typed client, generated from the OpenAPI document, talks to the server."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from e2e.operations import DOCUMENT
from live_server import LiveServer

PACKAGE = "waystation_client"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(DOCUMENT))
    (folder / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json"]
    options = ["--meta", "none", "--output-path", PACKAGE, "--config", "config.yml"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def call(client: Any, name: str, **arguments: Any) -> Any:
    """The one generated function of that operation."""
    module = next(
        module
        for tag in ("assistants", "threads", "runs", "stateless_runs", "thread_state")
        if (module := found(f"{PACKAGE}.api.{tag}.{name}")) is not None
    )
    return module.sync(client=client, **arguments)


def found(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def test_it_makes_threads_and_runs_and_finds_them(generated: Path, live_server: LiveServer) -> None:
    models: Any = importlib.import_module(f"{PACKAGE}.models")
    client: Any = importlib.import_module(PACKAGE).Client(base_url=live_server.url, timeout=60)
    with client:
        metadata = models.ThreadCreateMetadata.from_dict({"made": "by a generated client"})
        thread = call(client, "create_thread", body=models.ThreadCreate(metadata=metadata))
        assert isinstance(thread, models.ThreadObject)
        assert thread.status == "idle"
        body = models.ThreadRunCreate(assistant_id="steps", input_={"n": 0})
        output = call(client, "wait_for_run", thread_id=thread.thread_id, body=body)
        assert output == {"log": ["a", "b"], "n": 2}
        runs = call(client, "list_runs", thread_id=thread.thread_id)
        assert [run.status for run in runs] == ["success"]
        search = models.ThreadSearch(ids=[thread.thread_id])
        [same] = call(client, "search_threads", body=search)
        assert same.thread_id == thread.thread_id
        missing = call(client, "get_thread", thread_id="00000000-0000-4000-8000-000000000000")
        assert isinstance(missing, models.ErrorDetail)
