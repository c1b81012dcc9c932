"""What a release stands on: one version, a changelog, declared dependencies, pins that fit them."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import waystation

REPOSITORY = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [
    REPOSITORY / "server" / "waystation",
    REPOSITORY / "checkpoints" / "waystation_db",
    REPOSITORY / "graphs" / "waystation_guards",
]
# Imported, but declared by a dependency of ours whose values they are. The dependency has to require them.
THROUGH = {
    "botocore": "boto3",
    "google": "a2a-sdk",
    "langgraph": "langgraph",
    "langsmith": "langchain-core",
    "opentelemetry": "a2a-sdk",
    "pydantic_core": "pydantic",
}
# Used where a project has them, and asked for by nothing of ours.
IF_THERE = {"numpy", "debugpy"}
PINS = ["requirements/run.txt", "requirements/dev.txt", "docker/uv.txt"]


def core() -> list[Requirement]:
    return [Requirement(line) for line in PROJECT["project"]["dependencies"]]


def extras() -> list[Requirement]:
    return [Requirement(line) for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines]


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def imported(path: Path) -> Iterator[str]:
    """Top-level names of other people's packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module]
        for name in (name.partition(".")[0] for name in found):
            if name not in sys.stdlib_module_names and not name.startswith("waystation"):
                yield name


@functools.cache
def installed() -> Mapping[str, list[str]]:
    """Which distributions have which top-level names."""
    return metadata.packages_distributions()


def providers(module: str) -> set[str]:
    known: set[str] = {canonicalize_name(name) for name in installed().get(module, [])}
    return known or {canonicalize_name(module)}


def test_the_version_is_written_once_and_told() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", waystation.__version__)
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "server/waystation/__init__.py"
    told = subprocess.run([sys.executable, "-m", "waystation.cli", "--version"], capture_output=True, text=True)
    assert told.stdout.strip() == f"waystation {waystation.__version__}"


def test_the_changelog_begins_with_what_is_unreleased_or_with_this_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[([^\]]+)\](.*)$", text, re.MULTILINE)
    assert sections[0][0] in {"Unreleased", waystation.__version__}
    assert [name for name, _ in sections].count(sections[0][0]) == 1
    for name, when in sections:
        assert name == "Unreleased" or re.fullmatch(r" - \d{4}-\d\d-\d\d", when), f"{name} has no date"
    first = re.split(r"^## ", text, flags=re.MULTILINE)[1]
    kinds = re.findall(r"^### (.+)$", first, re.MULTILINE)
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert len(kinds) == len(set(kinds)), "a kind of change has two sections"


def test_no_dependency_is_declared_twice() -> None:
    declared = [canonicalize_name(requirement.name) for requirement in core()]
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_is_imported_is_declared(package: Path) -> None:
    known = names([*core(), *extras()])
    undeclared: dict[str, str] = {}
    for path in package.rglob("*.py"):
        for module in imported(path):
            if not (providers(module) & known or module in THROUGH or module in IF_THERE):
                undeclared[module] = str(path.relative_to(REPOSITORY))
    assert not undeclared


@pytest.mark.parametrize(("module", "parent"), THROUGH.items())
def test_what_comes_through_a_dependency_does_come_through_it(module: str, parent: str) -> None:
    assert canonicalize_name(parent) in names([*core(), *extras()])
    seen, rest = set[str](), [parent]
    while rest:
        name = canonicalize_name(rest.pop())
        if name not in seen:
            seen.add(name)
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            rest += [
                found.name for found in map(Requirement, lines) if not (found.marker and "extra" in str(found.marker))
            ]
    assert providers(module) & seen, f"{parent} does not bring {module} any more: declare it"


def test_guards_and_the_database_need_no_extra() -> None:
    """Loads each module with everything refused that only an extra brings."""
    lacking = sorted(names(extras()) - names(core()))
    done = subprocess.run([sys.executable, "-c", _WITHOUT, *lacking], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


_WITHOUT = """
import importlib, pkgutil, sys
from importlib import metadata

names = {name.replace("-", "_") for name in sys.argv[1:]}
names |= {top for top, dists in metadata.packages_distributions().items()
          if dists and all(d.lower().replace("_", "-") in sys.argv[1:] for d in dists)}
names -= {"opentelemetry"}

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names or name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
failed = []
for root in ("waystation_db", "waystation_guards", "waystation"):
    package = importlib.import_module(root)
    for found in pkgutil.walk_packages(package.__path__, root + ".", onerror=lambda name: None):
        if found.name.endswith("__main__") or found.name.startswith("waystation_guards.middleware"):
            continue  # middleware is LangChain's, and so of the extra `agents`
        try:
            importlib.import_module(found.name)
        except Exception as error:
            failed.append(f"{found.name}: {error!r}")
allowed = ("waystation.cli.backing_up_s3:", "waystation.cli.bench_picture:", "waystation.telemetry.otel")
failed = [line for line in failed if not line.startswith(allowed)]
print("\\n".join(failed))
sys.exit(bool(failed))
"""


@pytest.mark.parametrize("path", PINS)
def test_pins_have_hashes_and_no_addresses(path: str) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert "://" not in text
    for name, _ in pinned(path):
        after = text.split(f"\n{name}==" if not text.startswith(f"{name}==") else f"{name}==", 1)[1]
        assert "--hash=sha256:" in after.partition("\n")[2].partition("\n")[0], f"{path}: {name} has no hash"


def pinned(path: str) -> list[tuple[str, str]]:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    return re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)


@pytest.mark.parametrize("path", ["requirements/run.txt", "requirements/dev.txt"])
def test_every_direct_dependency_is_pinned_within_its_range(path: str) -> None:
    versions = {canonicalize_name(name): version for name, version in pinned(path)}
    groups: list[str] = ["test", "lint", "build", "release"] if "dev" in path else ["build"]
    lines = [line for group in groups for line in PROJECT["dependency-groups"][group]]
    optional: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    lines += [line for extra in re.findall(r"--extra (\w+)", makefile) for line in optional[extra]]
    wrong: list[str] = []
    for requirement in [*core(), *map(Requirement, lines)]:
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement}: {version or 'not pinned'}")
    assert not wrong, f"{path} does not fit pyproject.toml; make pins"


def test_what_serves_and_what_is_tested_are_the_same_versions() -> None:
    assert set(pinned("requirements/run.txt")) <= set(pinned("requirements/dev.txt"))
    assert set(pinned("docker/uv.txt")) <= set(pinned("requirements/dev.txt"))
