"""The wheel and the source archive: what they hold, the same in every build; and that the wheel alone works."""

from __future__ import annotations

import hashlib
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

import waystation

REPOSITORY = Path(__file__).parents[2]
DIST = REPOSITORY / "release" / "dist.py"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built and checked by `make dist`'s script."""
    folder = tmp_path_factory.mktemp("dist")
    told = subprocess.run([sys.executable, DIST, "--out", folder], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count(" kB") == 2
    return folder


def wheel_in(folder: Path) -> Path:
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_of_the_source_archive_is_the_wheel_of_the_checkout(archives: Path, tmp_path: Path) -> None:
    (source,) = archives.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", "out", "-t", "wheel"],
        cwd=unpacked,
        check=True,
        capture_output=True,
    )
    digests = [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel_in(archives), wheel_in(unpacked / "out"))
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("lost", "added"),
    [("waystation_db/queries/runs.sql", ""), ("", "tests/test_x.py"), ("waystation_guards/py.typed", "")],
)
def test_an_archive_that_is_not_whole_is_refused(archives: Path, tmp_path: Path, lost: str, added: str) -> None:
    for path in archives.iterdir():
        shutil.copy2(path, tmp_path)
    with zipfile.ZipFile(wheel_in(archives)) as whole, zipfile.ZipFile(wheel_in(tmp_path), "w") as broken:
        for name in whole.namelist():
            if name != lost:
                broken.writestr(name, whole.read(name))
        if added:
            broken.writestr(added, "")
    told = subprocess.run([sys.executable, DIST, "--check", tmp_path], capture_output=True, text=True)
    assert told.returncode == 1
    assert (lost or added) in told.stderr


def test_the_wheel_alone_works(archives: Path, tmp_path: Path) -> None:
    """Dependencies come from the environment of the tests, the server from the wheel and nothing else."""
    home = tmp_path / "venv"
    venv.create(home)
    (packages,) = (home / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    install = [
        find_uv_bin(),
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--python",
        home / "bin" / "python",
    ]
    subprocess.run([*install, wheel_in(archives)], check=True)

    def told(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([home / "bin" / command[0], *command[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    assert told("waystation", "--version").stdout == f"waystation {waystation.__version__}\n"
    where = (
        "import waystation as a, waystation_db as b, waystation_guards as c; print(a.__file__, b.__file__, c.__file__)"
    )
    assert told("python", "-c", where).stdout.count(str(packages)) == 3
    (tmp_path / "graphs.py").write_text(_GRAPH, encoding="utf-8")
    (tmp_path / "langgraph.json").write_text('{"dependencies": ["."], "graphs": {"one": "./graphs.py:graph"}}')
    assert "one" in told("waystation", "doctor").stdout


_GRAPH = """
from langgraph.graph import END, START, MessagesState, StateGraph

builder = StateGraph(MessagesState)
builder.add_node("say", lambda state: {"messages": [("ai", "hello")]})
builder.add_edge(START, "say")
builder.add_edge("say", END)
graph = builder.compile()
"""
