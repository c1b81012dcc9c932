"""Carry out the Dockerfile without Docker: is it reproducible, how large, and does it serve read-only and not as root?

    python -m bench.image --python ~/.pyenv/versions/3.12.1            build once, tell the sizes, serve a run
    python -m bench.image --python ~/.pyenv/versions/3.12.1 --twice    build twice, and compare every byte

Builds what is committed. Needs Linux, root, `git`, `unshare`, `chroot` and `setpriv`, and a Python of the image's
version that stands in for the base image's: its files are copied to /usr/local of a root whose /usr is this machine's,
under an overlay. Every step is executed as it is written. What the base image weighs is therefore not measured, only
what is laid upon it.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from bench.image.serving import serve
from bench.image.sizes import differences, report
from bench.image.stages import build

REPOSITORY = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="the folder of a Python 3.12, with bin/ and lib/")
    parser.add_argument("--target", default="", help="the stage to build; without it the last one")
    parser.add_argument("--twice", action="store_true", help="build a second time and compare")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="waystation-image-") as folder:
        context = Path(folder) / "context"
        context.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", context], input=archive.stdout, check=True)
        images: list[Path] = []
        for name in ("first", "second") if arguments.twice else ("first",):
            began = time.monotonic()
            images.append(build(context, Path(folder) / name, python=arguments.python, target=arguments.target))
            print(f"{name} build: {time.monotonic() - began:.0f} s")
        print(report(images[0]), flush=True)
        if arguments.twice:
            found = differences(*images)
            print(
                "\n".join(["The two builds differ:", *found]) if found else "The two builds are equal, byte by byte.",
                flush=True,
            )
        serve(images[0])


if __name__ == "__main__":
    main()
