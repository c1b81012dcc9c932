"""Reading langgraph.json: every key, where it comes from, and what is said when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waystation.catalog.project import configure, project_from_settings, read_project
from waystation.config import Settings
from waystation.errors import ConfigError

LEAST: dict[str, Any] = {"graphs": {"g": "./g.py:graph"}, "dependencies": ["."]}


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "langgraph.json"
    path.write_text(json.dumps({**LEAST, **keys}), encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_project(path)
    return caught.value.message


def test_the_least_project_has_one_graph_and_its_folder_to_import_from(tmp_path: Path) -> None:
    project = read_project(write(tmp_path))

    assert project.root == tmp_path
    assert project.folders == (tmp_path,)
    assert project.warnings == ()
    graph = project.graphs["g"]
    assert (graph.target.file, graph.target.name, graph.description) == (tmp_path / "g.py", "graph", None)


def test_a_folder_may_be_given_instead_of_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    assert read_project(tmp_path).config_path == tmp_path / "langgraph.json"


def test_a_graph_may_have_a_description_and_come_from_a_module(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, graphs={"g": {"path": "pkg.graphs:make", "description": "Adds"}}))

    graph = project.graphs["g"]
    assert (graph.target.module, graph.target.file, graph.target.name) == ("pkg.graphs", None, "make")
    assert graph.description == "Adds"


def test_every_section_is_read_with_the_defaults_of_the_platform(tmp_path: Path) -> None:
    project = read_project(
        write(
            tmp_path,
            store={"index": {"dims": 8, "embed": "./e.py:embed"}, "ttl": {"default_ttl": 120}},
            checkpointer={"ttl": {"strategy": "keep_latest", "default_ttl": 60}, "serde": {"pickle_fallback": False}},
            auth={"path": "./a.py:auth", "disable_studio_auth": True, "cache": {"cache_keys": ["authorization"]}},
            encryption={"path": "./e.py:e"},
            priority={"path": "./p.py:p"},
            http={"cors": {"allow_origins": ["https://a"]}, "configurable_headers": {"includes": ["x-*"]}},
            webhooks={"headers": {"x": "${{ env.LG_WEBHOOK_T }}"}, "url": {"allowed_ports": [443]}},
            ui={"card": "./card.tsx"},
            ui_config={"shared": ["react"]},
        )
    )

    assert [warning.split()[0] for warning in project.warnings] == ["ui"]
    assert project.store is not None
    assert project.store.index is not None
    assert (project.store.index.dims, project.store.index.fields) == (8, ("$",))
    assert project.store.ttl is not None
    assert (project.store.ttl.default_ttl, project.store.ttl.refresh_on_read) == (120, True)
    assert project.checkpointer is not None
    assert project.checkpointer.ttl is not None
    assert (project.checkpointer.ttl.strategy, project.checkpointer.ttl.sweep_limit) == ("keep_latest", 1000)
    assert project.auth is not None
    assert project.auth.disable_studio_auth
    assert project.http is not None
    assert project.http.cors is not None
    assert project.http.cors.allow_methods == ("GET",)
    assert project.webhooks is not None
    assert (project.webhooks.env_prefix, project.webhooks.url.disable_loopback) == ("LG_WEBHOOK_", True)


def test_keys_for_building_an_image_are_accepted(tmp_path: Path) -> None:
    keys = {
        "$schema": "https://example.org/schema.json",
        "python_version": "3.12",
        "node_version": "20",
        "api_version": "0.7",
        "base_image": "ours/server",
        "image_distro": "wolfi",
        "dockerfile_lines": ["RUN true"],
        "pip_config_file": "./pip.conf",
        "pip_installer": "uv",
        "keep_pkg_tools": ["pip"],
        "_INTERNAL_docker_tag": "x",
    }
    assert read_project(write(tmp_path, **keys)).warnings == ()


def test_unknown_keys_are_warned_about_at_every_depth(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, grafs={}, http={"disable_everything": True}, waystation={"lease": 1}))

    assert [warning.split()[0] for warning in project.warnings] == [
        "grafs",
        "http.disable_everything",
        "waystation.lease",
    ]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"graphs": {}}, "graphs is {}"),
        ({"graphs": []}, "graphs is []"),
        ({"graphs": {"g": 1}}, "graphs.g is 1"),
        ({"graphs": {"g": "./g.py"}}, "graphs.g is './g.py'"),
        ({"graphs": {"g": "./g.py:"}}, "graphs.g is './g.py:'"),
        ({"graphs": {"g": {"path": "./g.py:a", "description": 1}}}, "graphs.g.description is 1"),
        ({"graphs": {"g": {"description": "x"}}}, "graphs.g is {"),
        ({"graphs": {"": "./g.py:a"}}, "graphs has the name ''"),
        ({"graphs": {"\ud800": "./g.py:a"}}, "graphs has the name '\\ud800'"),
        ({"dependencies": []}, "dependencies is missing"),
        ({"dependencies": "."}, "dependencies is '.'"),
        ({"dependencies": [".", "./nope"]}, "dependencies[1] is './nope'"),
        ({"env": 3}, "env is 3"),
        ({"env": {"A": []}}, "env is {'A': []}: the value of A"),
        ({"store": {"index": {"dims": "many", "embed": "x"}}}, "store.index.dims is 'many'"),
        ({"store": {"index": {"dims": 8}}}, "store.index.embed is missing"),
        ({"checkpointer": {"ttl": {"strategy": "burn"}}}, "checkpointer.ttl.strategy is 'burn'"),
        ({"checkpointer": {"serde": {"allowed_json_modules": 3}}}, "checkpointer.serde.allowed_json_modules is 3"),
        ({"http": {"mount_prefix": "api"}}, "http.mount_prefix is 'api'"),
        ({"http": {"cors": {"allow_origins": "*"}}}, "http.cors.allow_origins is '*'"),
        ({"webhooks": {"url": {"allowed_ports": [0]}}}, "webhooks.url.allowed_ports.0 is 0"),
        ({"auth": []}, "auth is []"),
        ({"python_version": "2"}, "python_version is '2'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_was_expected(
    tmp_path: Path, keys: dict[str, Any], named: str
) -> None:
    message = complaint(write(tmp_path, **keys))

    assert message.startswith("langgraph.json: ")
    assert named in message
    assert len(message.splitlines()) == 1
    assert len(message.partition(named)[2]) > 10, "it does not say what was expected"
    assert "tuple" not in message, "JSON has lists"


@pytest.mark.parametrize("suffix", ["ts", "tsx", "js", "mjs"])
def test_a_javascript_graph_is_refused_in_so_many_words(tmp_path: Path, suffix: str) -> None:
    message = complaint(write(tmp_path, graphs={"g": f"./src/g.{suffix}:graph"}))
    assert "JavaScript and TypeScript are not supported" in message


def test_broken_json_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "langgraph.json"
    path.write_text('{\n  "graphs": {},,\n}', encoding="utf-8")
    assert complaint(path).startswith("langgraph.json, line 2, column 16: ")


@pytest.mark.parametrize("text", ["[]", '"x"', "null", "[" * 100_000])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "langgraph.json"
    path.write_text(text, encoding="utf-8")
    assert "langgraph.json" in complaint(path)


def test_a_key_given_twice_is_refused_for_one_of_them_would_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "langgraph.json"
    path.write_text('{"graphs": {"a": "./a.py:a", "a": "./b.py:b"}, "dependencies": ["."]}', encoding="utf-8")
    assert "a is given twice" in complaint(path)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    assert "--config" in complaint(tmp_path / "langgraph.json")


def test_local_dependencies_give_their_folder_and_their_src(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for folder in ("project/lib/src", "project/whole/src", "shared"):
        (tmp_path / folder).mkdir(parents=True)
    (root / "whole" / "src" / "__init__.py").touch()  # here `src` is the package

    project = read_project(write(root, dependencies=["./lib", "whole", "../shared"]))

    expected = (root / "lib", root / "lib" / "src", root / "whole", tmp_path / "shared", root)
    assert project.folders == expected


def test_a_package_that_is_not_installed_is_warned_about(tmp_path: Path) -> None:
    dependencies = [
        ".",
        "langgraph>=1",
        "langchain_core[x] ; python_version > '3'",
        "no-such-package==1",
        "git+https://x/y",
    ]
    warnings = read_project(write(tmp_path, dependencies=dependencies)).warnings

    assert len(warnings) == 1
    assert "no-such-package==1" in warnings[0]
    assert "pip install" in warnings[0]


def test_env_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('A=1\nB="two words"\nEMPTY\n# comment\n', encoding="utf-8")
    assert read_project(write(tmp_path, env=".env")).env == {"A": "1", "B": "two words"}


def test_env_may_be_an_object_of_plain_values(tmp_path: Path) -> None:
    assert read_project(write(tmp_path, env={"A": "x", "B": 2})).env == {"A": "x", "B": "2"}


def test_an_env_file_that_is_not_there_is_only_warned_about(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, env=".env"))
    assert project.env == {}
    assert ".env" in project.warnings[0]


def test_the_variables_of_an_image_make_the_same_project(tmp_path: Path) -> None:
    settings = Settings(
        langserve_graphs={"g": {"path": str(tmp_path / "g.py") + ":graph", "description": "x"}},
        langgraph_store={"ttl": {"default_ttl": 1}},
        langgraph_http={"disable_mcp": True},
        langgraph_webhooks={"env_prefix": "X_"},
    )
    from_image = project_from_settings(settings, root=tmp_path)
    from_file = read_project(
        write(
            tmp_path,
            graphs={"g": {"path": "./g.py:graph", "description": "x"}},
            store={"ttl": {"default_ttl": 1}},
            http={"disable_mcp": True},
            webhooks={"env_prefix": "X_"},
        )
    )

    assert from_image.graphs["g"].target.file == from_file.graphs["g"].target.file
    assert (from_image.store, from_image.http, from_image.webhooks) == (
        from_file.store,
        from_file.http,
        from_file.webhooks,
    )
    assert from_image.folders == from_file.folders


def test_a_wrong_value_in_the_variables_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.index\.dims is 'x'"):
        project_from_settings(
            Settings(langserve_graphs={"g": "./g.py:g"}, langgraph_store={"index": {"dims": "x", "embed": "e"}}),
            root=tmp_path,
        )


def test_configure_takes_the_file_that_was_named_before_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    monkeypatch.setenv("LANGSERVE_GRAPHS", '{"image": "./g.py:graph"}')

    assert list(configure(path, root=tmp_path)[1].graphs) == ["g"]
    assert list(configure(None, root=tmp_path)[1].graphs) == ["image"]
    monkeypatch.delenv("LANGSERVE_GRAPHS")
    assert list(configure(None, root=tmp_path)[1].graphs) == ["g"]


def test_settings_may_stand_in_the_env_of_the_project_and_the_process_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("N_JOBS_PER_WORKER", "BG_JOB_TIMEOUT_SECS"):
        monkeypatch.setenv(name, "5")
    monkeypatch.delenv("BG_JOB_TIMEOUT_SECS")
    path = write(tmp_path, env={"N_JOBS_PER_WORKER": "7", "BG_JOB_TIMEOUT_SECS": "7"})

    settings, _ = configure(path, root=tmp_path)

    assert settings.n_jobs_per_worker == 5
    assert settings.bg_job_timeout_s == 7
