"""The runbooks name what exists: metrics, alerts, commands with their options, settings, files, objects of the
manifests, and sentences of the log."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from bench.drills import DRILLS
from prometheus_client import REGISTRY, generate_latest

import waystation.telemetry.metrics
from waystation.cli.commands import app
from waystation.config import settings_environment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/operations/runbooks"
RUNBOOKS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
PAGES = [*RUNBOOKS, FOLDER / "README.md", ROOT / "docs/production.md"]
ALERTS = ROOT / "deploy/prometheus/rules/waystation-alerts.yml"
SECTIONS = ["Detect", "Assess", "Respond", "Restore", "Learn"]
# `kubectl -n waystation get …` is no command of ours.
KUBECTL = {"annotate", "delete", "describe", "exec", "get", "logs", "patch", "port-forward", "rollout", "scale", "top"}
OURS = ("WAYSTATION_", "LANGGRAPH_", "BG_JOB_", "N_JOBS", "RESUMABLE_", "CORS_", "LOG_", "DATABASE_URI", "REDIS_URI")
assert waystation.telemetry.metrics  # declares the metrics


def ids(path: Path) -> str:
    return path.stem


def code(page: Path) -> str:
    """Its code spans and blocks, a line each."""
    text = page.read_text()
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*blocks, *spans])


@cache
def sources() -> str:
    return "\n".join(
        path.read_text() for folder in ("server", "graphs", "checkpoints") for path in (ROOT / folder).rglob("*.py")
    )


@cache
def objects() -> frozenset[str]:
    """Names of what the manifests make."""
    files = [path for path in (ROOT / "k8s").rglob("*.yaml") if path.name != "kustomization.yaml"]
    return frozenset(re.findall(r"^  name: ([\w-]+)$", "\n".join(path.read_text() for path in files), re.MULTILINE))


@cache
def options() -> dict[str, frozenset[str]]:
    """The options of each command and subcommand: `ledger export` → `--tenant`, …"""
    found: dict[str, frozenset[str]] = {}

    def walk(name: str, command: Any) -> None:
        found[name] = frozenset(option for one in command.params for option in (*one.opts, *one.secondary_opts))
        for sub, below in getattr(command, "commands", {}).items():
            walk(f"{name} {sub}".strip(), below)

    walk("", typer.main.get_command(app))
    return found


@pytest.mark.parametrize("page", RUNBOOKS, ids=ids)
def test_a_runbook_has_its_parts_and_is_in_the_index(page: Path) -> None:
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == SECTIONS
    assert f"({page.name})" in (FOLDER / "README.md").read_text()
    assert page.stem in DRILLS


def test_alerts_lead_to_runbooks_that_name_them() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    missing = [
        rule["alert"]
        for rule in rules
        if f"`{rule['alert']}`" not in (ROOT / rule["annotations"]["runbook_url"].partition("#")[0]).read_text()
    ]
    assert not missing
    known = {rule["alert"] for rule in rules}
    for page in PAGES:
        assert set(re.findall(r"\bWaystation[A-Z]\w+", code(page))) <= known, page.name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_metrics_exist(page: Path) -> None:
    exported = set(re.findall(r"^# HELP (\S+)", generate_latest(REGISTRY).decode(), re.MULTILINE))
    named = set(re.findall(r"(?<![\w/.-])((?:waystation|agent)_[a-z_]+)", code(page)))
    known = exported | {f"{name}_{part}" for name in exported for part in ("bucket", "sum", "count")}
    # A prefix of a pattern, as `grep` has them.
    assert not {name for name in named if name not in known and not any(one.startswith(f"{name}_") for one in known)}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_their_options_exist(page: Path) -> None:
    for called in re.findall(r"(?<![\w/-])waystation ([a-z][^`\n|#]*)", code(page)):
        words = called.split()
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in options()), None)
        assert name is not None or words[0] in KUBECTL, f"{page.name}: no such command: waystation {called}"
        for option in re.findall(r"(?:^|\s)(--?[a-z][\w-]*)", called):
            assert name is None or option in options()[name] | _below(name), f"{page.name}: waystation {called}"


def _below(name: str) -> frozenset[str]:
    """`waystation backup PLACE` is `backup create PLACE`."""
    return options().get(f"{name} create", frozenset())


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_exist(page: Path) -> None:
    known = {name for one in settings_environment().values() for name in one.names}
    named = {name for name in re.findall(r"\b[A-Z][A-Z0-9_]{4,}\b", code(page)) if name.startswith(OURS)}
    assert named - known <= {"WAYSTATION_LEASE"}  # the page shows what a misspelt one is answered with


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_and_objects_of_the_manifests_exist(page: Path) -> None:
    for path in re.findall(r"(?<![\w/.])((?:k8s|deploy|docs)/(?!waystation)[\w./*-]+)", code(page)):
        assert list(ROOT.glob(path)), path
    for name in re.findall(
        r"(?:deploy|svc|job|deployment|scaledobject|ingress|cluster)[ /](waystation[\w-]*)", code(page)
    ):
        assert name in objects(), name
    for drill in re.findall(r"bench\.drills ([a-z -]+)", code(page)):
        assert set(drill.split()) <= set(DRILLS)


@pytest.mark.parametrize("page", RUNBOOKS, ids=ids)
def test_sentences_of_the_log_are_those_of_the_code(page: Path) -> None:
    detect = page.read_text()
    named = re.findall(r"[Ll]ogs?(?: of another worker)?:? `([^`]+)`(?:, `([^`]+)`)*", detect)
    for sentence in {one for found in named for one in found if " " in one}:
        assert f'"{sentence}"' in sources(), sentence
