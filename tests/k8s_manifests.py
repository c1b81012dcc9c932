"""The Kubernetes manifests in `k8s/`, rendered by kubectl, for tests that read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[1] / "k8s"
KUBECTL = shutil.which("kubectl")

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not here")

OVERLAYS = sorted(
    str(path.parent.relative_to(K8S))
    for path in K8S.glob("overlays/**/kustomization.yaml")
    if "kind: Kustomization" in path.read_text()
)
"""Every overlay that can be applied; folders with components of theirs are none."""

VARIANTS: Mapping[str, Sequence[str]] = {
    "hpa-light": ("secrets-plain", "hpa", "profile-light", "postgres-pod", "redis"),
    "hpa-heavy": ("secrets-external", "hpa", "profile-heavy", "ingress", "monitoring"),
    "rollouts": ("secrets-external", "profile-standard", "keda", "ingress", "monitoring", "rollouts"),
    "rollouts-hpa": ("secrets-external", "hpa", "profile-standard", "ingress", "rollouts"),
    "keda-plain": ("secrets-plain", "profile-light", "postgres-pod", "redis", "keda"),
    "gateway-cnpg": ("secrets-external", "profile-heavy", "redis", "keda", "gateway", "postgres-cnpg"),
}
"""Overlays that users may put together of the components that those here leave out."""

Manifest = Mapping[str, Any]

_HASHED = ("ConfigMap", "Secret")
"""Kinds whose names end in a hash of their content."""


def rendered(name: str) -> list[Manifest]:
    """The objects of an overlay or a variant."""
    return list(_rendered(name))


@lru_cache
def _rendered(name: str) -> tuple[Manifest, ...]:
    if name in VARIANTS:
        with tempfile.TemporaryDirectory(prefix="waystation-k8s-") as folder:
            write_variant(Path(folder).resolve(), name)
            return _loaded(_kustomize(Path(folder)))
    return _loaded(_kustomize(K8S / name))


def _loaded(text: str) -> tuple[Manifest, ...]:
    # The loader in C, where PyYAML has it, takes a tenth of the time.
    return tuple(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _kustomize(folder: Path) -> str:
    done = subprocess.run(
        [KUBECTL or "kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_variant(folder: Path, name: str) -> None:
    """Put that variant's overlay there. Kustomize wants the paths of its components to be relative."""
    here = os.path.relpath(K8S, folder)
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "waystation",
        "resources": [f"{here}/base"],
        "components": [f"{here}/components/{component}" for component in VARIANTS[name]],
        "images": [
            {"name": "waystation", "newName": "registry.example.com/my-agents", "newTag": "1.0.0"},
            {"name": "valkey/valkey", "newTag": "8.1.4-alpine"},
            {"name": "pgvector/pgvector", "newTag": "0.8.1-pg17-bookworm"},
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: Sequence[Manifest], kind: str, name: str) -> Any:
    """The object of that kind and name."""
    found = [
        manifest
        for manifest in of_kind(manifests, kind)
        if manifest["metadata"]["name"] == name
        or (kind in _HASHED and manifest["metadata"]["name"].rpartition("-")[0] == name)
    ]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Any]]:
    """Name of the owner and template of everything that has pods."""
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]


def ours(manifests: Sequence[Manifest], *components: str) -> Iterator[tuple[str, Any]]:
    """The same, for the pods of our image."""
    for name, template in pods(manifests):
        labels = template["metadata"]["labels"]
        if labels["app.kubernetes.io/name"] != "waystation":
            continue
        if not components or labels["app.kubernetes.io/component"] in components:
            yield name, template


def container(template: Any) -> Any:
    """The only container of a pod."""
    (only,) = template["spec"]["containers"]
    return only


def settings_of(manifests: Sequence[Manifest]) -> dict[str, str]:
    """The variables of the config map."""
    return dict(one(manifests, "ConfigMap", "waystation-config")["data"])
