"""What lies in the image: readable for its user whatever the umask of the checkout was, and the same on every day."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from scratch_image import REPOSITORY, steps_of

_CHECKOUT = ("pyproject.toml", "README.md", "LICENSE", "docker", "server", "checkpoints", "graphs/waystation_guards")


def private_checkout(folder: Path) -> Path:
    """A copy of what the Dockerfile copies, which its owner alone may read."""
    for name in _CHECKOUT:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    subprocess.run(["chmod", "-R", "go-rwx", folder], check=True)
    return folder


def test_a_checkout_that_only_its_owner_may_read_becomes_an_image_that_its_user_can_read(tmp_path: Path) -> None:
    checkout, target = private_checkout(tmp_path / "checkout"), tmp_path / "api"
    subprocess.run(
        ["sh", "-c", 'umask 077; sh "$0" "$1" "$2"', checkout / "docker" / "assemble.sh", checkout, target],
        check=True,
        env={**os.environ, "PYTHON": "python"},
    )
    laid_out = [target, *target.rglob("*")]
    assert len(laid_out) > 300
    for path in laid_out:
        mode = stat.S_IMODE(path.stat().st_mode)
        expected = {0o755} if path.is_dir() else {0o644, 0o755}
        assert mode in expected, f"{path} is {mode:o}"
    assert os.access(target / "entrypoint.sh", os.X_OK)


def test_the_user_of_the_image_is_made_without_the_day_on_which_it_was_made(tmp_path: Path) -> None:
    """`/etc/shadow` would hold it, and another layer would come out of tomorrow's build."""
    if os.getuid() != 0 or not shutil.which("useradd"):
        pytest.skip("only root can make users")
    steps = steps_of((REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    (made,) = [step.argument for step in steps if "useradd" in step.argument]
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).touch()
    for program in ("groupadd", "useradd"):
        assert f"{program} " in made
        made = made.replace(f"{program} ", f"{program} --prefix {tmp_path} ")
    subprocess.run(["sh", "-c", made], check=True, capture_output=True)

    assert "waystation:x:10001:10001:" in (tmp_path / "etc" / "passwd").read_text()
    shadow = (tmp_path / "etc" / "shadow").read_text().split(":")
    assert shadow[:3] == ["waystation", "!", ""]
