"""Argo CD applies wave after wave and waits for each to be healthy: what a wave needs is not in a later one."""

from __future__ import annotations

import pytest

from k8s_manifests import OVERLAYS, VARIANTS, Manifest, needs_kubectl, of_kind, rendered

pytestmark = needs_kubectl


def wave(manifest: Manifest) -> int:
    return int(manifest["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0"))


@pytest.mark.parametrize("overlay", [*OVERLAYS, *VARIANTS])
def test_what_the_first_migrations_need_is_there_before_them(overlay: str) -> None:
    manifests = rendered(overlay)
    (namespace,) = of_kind(manifests, "Namespace")
    assert all(wave(namespace) < wave(other) for other in manifests if other is not namespace)
    needed = of_kind(manifests, "ServiceAccount", "ConfigMap", "Secret", "ExternalSecret", "StatefulSet", "Cluster")
    needed += [m for m in of_kind(manifests, "Service") if m["metadata"]["name"] == "waystation-postgres"]
    jobs = {job["metadata"]["name"]: job for job in of_kind(manifests, "Job")}
    before = wave(jobs["waystation-migrate-pre"]) if jobs else -1
    assert all(wave(thing) < before for thing in needed)
    assert all(
        before < wave(m) for m in of_kind(manifests, "Deployment") if m["metadata"]["name"] != "waystation-redis"
    )
    # A database that waits for its owner's password is not healthy before it has it.
    for cluster in of_kind(manifests, "Cluster"):
        wanted = str(cluster["spec"]["bootstrap"])
        for secret in of_kind(manifests, "ExternalSecret"):
            if f"'{secret['spec']['target']['name']}'" in wanted:
                assert wave(secret) <= wave(cluster)
