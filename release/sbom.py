"""Write what the image holds of Python packages as a CycloneDX document: names, versions, hashes.

    python release/sbom.py              into dist/waystation-<version>.cdx.json
    python release/sbom.py --out FILE

From the pins, with what the Dockerfile leaves out left out. The base image's own packages are not in it: its
publisher's document, or a scan of the built image, has those. Needs the dependency group `release`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from dist import REPOSITORY, version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist" / f"waystation-{version()}.cdx.json")
    out = parser.parse_args().out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        pins, raw = Path(folder) / "image.txt", Path(folder) / "raw.json"
        pins.write_text(image_pins(), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(pins), "-o", str(raw)]
        options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--sv", "1.6", "--of", "JSON"]
        subprocess.run([*command, *options], cwd=REPOSITORY, check=True)
        document = json.loads(raw.read_text(encoding="utf-8"))
    _name_the_root(document)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{out.name}: {len(document['components'])} packages\n")


def image_pins() -> str:
    """The pins that the Dockerfile installs, by the Dockerfile's own words."""
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    backend = re.findall(r'BACKEND="([^"]+)"', dockerfile)[0].split()
    left_out = re.findall(r"--without (.+?) \$BACKEND", dockerfile)[0].split()
    command = [sys.executable, "docker/pins.py", "requirements/run.txt", "--without", *left_out, *backend]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def _name_the_root(document: dict[str, Any]) -> None:
    """The version, which pyproject.toml takes from the code, and the packages that are asked for by name."""
    root = document["metadata"]["component"]
    root["version"] = version()
    root["purl"] = f"pkg:pypi/waystation@{version()}"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {_canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in project["dependencies"]}
    direct = sorted(part["bom-ref"] for part in document["components"] if _canonical(part["name"]) in asked)
    for entry in document["dependencies"]:
        if entry["ref"] == root["bom-ref"]:
            entry["dependsOn"] = direct


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
