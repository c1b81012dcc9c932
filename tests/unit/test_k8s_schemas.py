"""Every manifest that the overlays render is one that Kubernetes and the operators accept, field by field.

Core kinds: the strict schemas that kubernetes-validate brings, of the oldest and of the newest version that is named.
Kinds of operators: `fixtures/k8s_schemas`, whose README says of which versions.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft7Validator

from k8s_manifests import OVERLAYS, VARIANTS, needs_kubectl, rendered

pytestmark = needs_kubectl

VERSIONS = ("1.31", "1.37")
SCHEMAS = Path(__file__).parents[1] / "fixtures" / "k8s_schemas"

GROUPS = {
    "ScaledObject": "keda.sh/v1alpha1",
    "TriggerAuthentication": "keda.sh/v1alpha1",
    "ExternalSecret": "external-secrets.io/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "Rollout": "argoproj.io/v1alpha1",
    "AnalysisTemplate": "argoproj.io/v1alpha1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "Cluster": "postgresql.cnpg.io/v1",
}


@cache
def operators_schema(kind: str) -> Draft7Validator:
    return Draft7Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))


@cache
def complaints(text: str) -> tuple[str, ...]:
    """What is wrong with one manifest, which many overlays have alike."""
    manifest: dict[str, Any] = json.loads(text)
    kind = manifest["kind"]
    if kind in GROUPS:
        assert manifest["apiVersion"] == GROUPS[kind]
        errors = operators_schema(kind).iter_errors(manifest)  # pyright: ignore[reportUnknownMemberType]  # as typed
        return tuple(f"{error.json_path}: {error.message}" for error in errors)
    found: list[str] = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{version}: {error}")
    return tuple(found)


@pytest.mark.parametrize("overlay", [*OVERLAYS, *VARIANTS])
def test_every_manifest_is_valid(overlay: str) -> None:
    wrong = {
        f"{manifest['kind']} {manifest['metadata']['name']}": found
        for manifest in rendered(overlay)
        if (found := complaints(json.dumps(manifest, sort_keys=True)))
    }
    assert not wrong


def test_the_schemas_refuse_what_no_kind_has() -> None:
    for kind in GROUPS:
        manifest = next(m for name in (*OVERLAYS, *VARIANTS) for m in rendered(name) if m["kind"] == kind)
        assert not complaints(json.dumps(manifest))
        broken = {**manifest, "spec": {**manifest["spec"], "replcas": 1}}
        assert complaints(json.dumps(broken)), kind
    service = next(m for m in rendered("overlays/dev") if m["kind"] == "Service")
    assert complaints(json.dumps({**service, "spec": {**service["spec"], "port": 80}}))
