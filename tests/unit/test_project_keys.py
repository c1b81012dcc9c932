"""What langgraph.json may say, key by key: what is refused, what is warned about, and that the documentation has it."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from waystation.catalog.keys import HeaderKeys, HttpKeys, ProjectKeys
from waystation.catalog.keys_own import WaystationKeys
from waystation.catalog.project import configure, read_project
from waystation.config import INEFFECTIVE, NEEDLESS, ineffective_variables
from waystation.errors import ConfigError
from waystation.services.project_parts import project_serde

DOCS = Path(__file__).parents[2] / "docs"
LEAST: dict[str, Any] = {"graphs": {"g": "./g.py:graph"}, "dependencies": ["."]}


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "langgraph.json"
    path.write_text(json.dumps({**LEAST, **keys}), encoding="utf-8")
    return path


def warnings_of(folder: Path, **keys: Any) -> tuple[str, ...]:
    return read_project(write(folder, **keys)).warnings


def complaint(folder: Path, **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_project(write(folder, **keys))
    return caught.value.message


def test_null_stands_for_the_default_wherever_the_platform_allows_it(tmp_path: Path) -> None:
    project = read_project(
        write(
            tmp_path,
            store={"index": None, "ttl": {"default_ttl": None, "sweep_interval_minutes": None}},
            checkpointer={"ttl": {"sweep_interval_minutes": None}, "serde": {"allowed_msgpack_modules": None}},
            auth=None,
            http={"cors": None, "configurable_headers": {"includes": None}, "middleware_order": None},
            env=None,
            node_version=None,
            pip_installer=None,
        )
    )
    assert project.warnings == ()
    assert project.http == HttpKeys(configurable_headers=HeaderKeys())
    assert project.checkpointer is not None
    assert project.checkpointer.ttl is not None
    assert project.checkpointer.ttl.sweep_interval_minutes == 5
    assert "graphs is missing" in complaint(tmp_path, graphs=None)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"chekpointer": {}}, "chekpointer is not known and has no effect; did you mean checkpointer?"),
        (
            {"http": {"disable_metta": True}},
            "http.disable_metta is not known and has no effect; did you mean http.disa",
        ),
        ({"store": {"ttl": {"refresh_on_reads": True}}}, "did you mean store.ttl.refresh_on_read?"),
        ({"entirely": 1}, "entirely is not known and has no effect"),
        ({"graphs": {"g": {"path": "./g.py:a", "descripton": "x"}}}, "graphs.g.descripton is not known"),
        ({"checkpointer": {"serde": {"pickle_fallback": True}}}, "pickle_fallback is true"),
        ({"checkpointer": {"serde": {"allowed_msgpack_modules": True}}}, "only listed ones are loaded"),
        ({"ui": {"card": "./card.tsx"}}, "/ui answers 404"),
    ],
)
def test_what_has_no_effect_is_warned_about_with_what_may_have_been_meant(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    (warning,) = warnings_of(tmp_path, **keys)
    assert said in warning


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"python_version": "3.10"}, "python_version is '3.10': should be \"3.11\" or newer"),
        ({"python_version": 3.12}, "python_version is 3.12: "),
        ({"node_version": "18"}, "node_version is '18': should be \"20\" or newer"),
        ({"image_distro": "alpine"}, "image_distro is 'alpine': "),
        ({"pip_installer": "poetry"}, "pip_installer is 'poetry': "),
        ({"keep_pkg_tools": ["poetry"]}, "keep_pkg_tools"),
        ({"source": {"kind": "poetry"}}, "source.kind is 'poetry': "),
        ({"http": {"app": "./web.py"}}, "http.app is './web.py': expected \"<file or module>:<name>\""),
        ({"auth": {"path": "auth"}}, "auth.path is 'auth': expected"),
        ({"encryption": {"path": "./e.ts:e"}}, "JavaScript and TypeScript are not supported"),
        ({"priority": {"path": "p.py:"}}, "priority.path is 'p.py:': expected"),
        ({"priority": {}}, "priority.path is missing"),
        ({"http": {"middleware_order": "last"}}, "http.middleware_order is 'last': "),
        ({"http": {"cors": {"allow_origin_regex": "("}}}, "http.cors.allow_origin_regex is '(': should be a regular"),
        ({"http": {"configurable_headers": {"includes": [""]}}}, "http.configurable_headers.includes.0 is ''"),
        ({"http": {"disable_mcp": "no way"}}, "http.disable_mcp is 'no way': "),
        ({"checkpointer": {"path": "./saver.py:make"}}, "a checkpointer of your own is not supported"),
        ({"checkpointer": {"ttl": {"default_ttl": -1}}}, "checkpointer.ttl.default_ttl is -1: "),
        ({"checkpointer": {"ttl": {"sweep_limit": 0}}}, "checkpointer.ttl.sweep_limit is 0: "),
        ({"dependencies": ["not a package"]}, "dependencies[0] is 'not a package': expected a folder"),
        ({"dependencies": ["langgraph.json"]}, "expected a folder or a package, and this is a file"),
        ({"env": {"A=B": "1"}}, "env has 'A=B': expected a name without ="),
        ({"env": {"A": "\0"}}, "env has 'A': expected"),
    ],
)
def test_a_wrong_value_stops_the_start(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    assert said in complaint(tmp_path, **keys)


def test_a_package_of_another_version_is_warned_about(tmp_path: Path) -> None:
    version = importlib.metadata.version("langgraph")
    wishes = [
        "langgraph>=0.1",
        "langgraph>=900",
        'no-such-package; python_version < "3"',
        "x @ https://e.example/x.whl",
    ]
    first, second = warnings_of(tmp_path, dependencies=wishes)
    assert f"'langgraph>=900', but {version} is installed" in first
    assert "which is not installed here" in second


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    assert "env is '.env', which cannot be read" in complaint(tmp_path, env=".env")


def test_an_env_file_may_refer_to_what_stands_above(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=db\nURI=postgres://${HOST}/x\nexport QUOTED='a # b'\n")
    assert read_project(write(tmp_path, env=".env")).env == {
        "HOST": "db",
        "URI": "postgres://db/x",
        "QUOTED": "a # b",
    }


def test_the_process_wins_against_an_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N_JOBS_PER_WORKER", "3")
    monkeypatch.setenv("BG_JOB_TIMEOUT_SECS", "to be undone")
    monkeypatch.delenv("BG_JOB_TIMEOUT_SECS")
    (tmp_path / ".env").write_text("N_JOBS_PER_WORKER=7\nBG_JOB_TIMEOUT_SECS=7\n")
    settings, _ = configure(write(tmp_path, env=".env"), root=tmp_path)
    assert (settings.n_jobs_per_worker, settings.bg_job_timeout_s) == (3, 7)


def test_a_variable_of_an_image_that_is_not_read_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGGRAPH_HTTP", '{"disable_mcp": true}')
    path = write(tmp_path)
    _, project = configure(path, root=tmp_path)
    assert project.http is None
    assert project.warnings == (f"LANGGRAPH_HTTP is set and has no effect: {path} is read instead",)


def test_what_is_ours_alone_comes_from_the_file_that_lies_in_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, http={"disable_mcp": True}, waystation={"http": {"disable_openai": True}})
    monkeypatch.setenv("LANGSERVE_GRAPHS", '{"image": "./g.py:graph"}')
    _, project = configure(None, root=tmp_path)
    assert list(project.graphs) == ["image"]
    assert project.http is None
    assert project.waystation.http.disable_openai


def test_variables_that_ask_for_what_is_not_done_are_warned_about() -> None:
    assert ineffective_variables({"REDIS_CLUSTER": "false", "REDIS_MAX_CONNECTIONS": ""}) == []
    (warning,) = ineffective_variables({"REDIS_CLUSTER": "true"})
    assert warning.startswith("REDIS_CLUSTER has no effect: ")


def test_listed_classes_are_found_however_their_module_is_written(tmp_path: Path) -> None:
    names = [["my_agent", "models", "State"], ["my_agent.models", "Other"]]
    keys = {"allowed_msgpack_modules": names, "allowed_json_modules": names}
    serde = project_serde(read_project(write(tmp_path, checkpointer={"serde": keys})))
    listed = serde._listed  # pyright: ignore[reportPrivateUsage]  # what is listed shows nowhere else without loading
    assert {("my_agent.models", "State"), ("my_agent.models", "Other")} <= listed
    assert serde._allowed_json_modules == {("my_agent", "models", "State"), ("my_agent", "models", "Other")}  # pyright: ignore


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that a model knows, dotted; of an object the members instead of itself."""
    for name, field in model.model_fields.items():
        members = [m for m in re.findall(r"\w+Keys", str(field.annotation)) if m != model.__name__]
        inner = next((c for c in _models(field.annotation) if members), None)
        yield from keys_of(inner, f"{prefix}{name}.") if inner else [prefix + name]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


PLATFORM_KEYS = [key for key in keys_of(ProjectKeys) if not key.startswith("waystation.")]


@pytest.mark.parametrize("key", PLATFORM_KEYS)
def test_the_documentation_has_every_key_of_the_platform(key: str) -> None:
    assert key in documented_keys()


@pytest.mark.parametrize("key", list(keys_of(WaystationKeys, "waystation.")))
def test_the_documentation_has_every_key_of_ours(key: str) -> None:
    assert key in documented_keys()


def test_the_documentation_has_no_key_that_is_not_there() -> None:
    known = {*PLATFORM_KEYS, *keys_of(WaystationKeys, "waystation.")}
    assert documented_keys() <= known


def documented_keys() -> set[str]:
    rows = (DOCS / "langgraph-json.md").read_text(encoding="utf-8").splitlines()
    first = [row.split("|")[1] for row in rows if row.startswith("| `")]
    return {key for cell in first for key in re.findall(r"`([\w.]+)`", cell)}


@pytest.mark.parametrize(("name", "why"), {**INEFFECTIVE, **NEEDLESS}.items())
def test_the_documentation_has_every_variable_that_is_not_read(name: str, why: str) -> None:
    sentence = why[:1].upper() + why[1:].rstrip(".") + "."
    assert f"| `{name}` | {sentence} |" in (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines()
