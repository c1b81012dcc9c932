"""Build the wheel and the source archive, and check that they hold what they have to and nothing else.

    python release/dist.py              into dist/, made anew
    python release/dist.py --check DIR  only check the two archives of a folder

Needs hatchling and nothing from a network. The archives are the same bytes whenever they are built from the same files.
"""

from __future__ import annotations

import argparse
import email.parser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = {"waystation": "server", "waystation_db": "checkpoints", "waystation_guards": "graphs"}
# What the code reads with importlib.resources, or what readers of types and licences look for.
WANTED = ("/migrations/0001*.sql", "/queries/runs.sql", "/guarding/lua/*.lua", "/screening/*.toml", "/api/docs.html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist", help="where the archives go; emptied first")
    parser.add_argument("--check", type=Path, help="check the archives of this folder instead of building")
    arguments = parser.parse_args()
    folder = arguments.check or _built(arguments.out)
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        sys.exit(f"{folder} has {len(wheels)} wheels and {len(sources)} source archives, not one of each")
    faults = [*_faults_of_wheel(wheels[0]), *_faults_of_sources(sources[0])]
    if faults:
        sys.exit("\n".join(faults))
    for archive in (*wheels, *sources):
        sys.stdout.write(f"{archive.name}: {archive.stat().st_size / 1000:.0f} kB\n")


def version() -> str:
    """The one place where the version is written."""
    text = (REPOSITORY / "server" / "waystation" / "__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found


def _built(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder.absolute()), "-t", "sdist", "-t", "wheel"]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return folder


def _files() -> set[str]:
    """Files of the packages as a wheel names them. Bytecode is the only thing there that does not belong to one."""
    found: set[str] = set()
    for package, root in PACKAGES.items():
        for path in (REPOSITORY / root / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(str(path.relative_to(REPOSITORY / root)))
    return found


def _faults_of_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = f"waystation-{version()}.dist-info/"
        faults = [f"{wheel.name} lacks {name}" for name in _missing(names, about)]
        if f"{about}METADATA" in names:
            faults += _faults_of_metadata(archive.read(f"{about}METADATA").decode())
    allowed = (*(f"{package}/" for package in PACKAGES), about)
    foreign = [name for name in sorted(names) if not name.startswith(allowed) or name.endswith(".pyc")]
    return [*faults, *(f"{wheel.name} has {name}, which belongs in no release" for name in foreign)]


def _missing(names: set[str], about: str) -> list[str]:
    known = {*_files(), *(f"{about}{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE"))}
    known |= {f"{package}/py.typed" for package in PACKAGES}
    kinds = [kind for kind in WANTED if not any(Path(f"/{name}").match(f"*{kind}") for name in names)]
    return sorted(known - names) + kinds


def _faults_of_metadata(text: str) -> list[str]:
    """What `twine check` looks at, and the version."""
    fields = email.parser.HeaderParser().parsestr(text)
    wanted = {"Name": "waystation", "Version": version(), "Description-Content-Type": "text/markdown"}
    faults = [
        f"METADATA says {name}: {fields[name]}, not {value}" for name, value in wanted.items() if fields[name] != value
    ]
    if not str(fields.get_payload()).strip():
        faults.append("METADATA has no description")
    return faults


def _faults_of_sources(source: Path) -> list[str]:
    top = f"waystation-{version()}"
    with tarfile.open(source) as archive:
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    wanted = {f"{PACKAGES[name.split('/')[0]]}/{name}" for name in _files()}
    wanted |= {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO"}
    allowed = (*(f"{root}/{package}/" for package, root in PACKAGES.items()), ".gitignore")
    foreign = [name for name in sorted(names - wanted) if not name.startswith(allowed) or name.endswith(".pyc")]
    return [
        *(f"{source.name} lacks {name}" for name in sorted(wanted - names)),
        *(f"{source.name} has {name}, which belongs in no release" for name in foreign),
    ]


if __name__ == "__main__":
    main()
