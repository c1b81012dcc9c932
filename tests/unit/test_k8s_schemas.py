"""Every manifest that the overlays render is one that Kubernetes and the operators accept, field by field.

Core kinds: the strict schemas that kubernetes-validate brings, of the oldest and of the newest version that is named.
Kinds of operators: `fixtures/k8s_schemas`, whose README says of which versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from k8s_manifests import K8S, OVERLAYS, VARIANTS, needs_kubectl, rendered

pytestmark = needs_kubectl

VERSIONS = ("1.27", "1.31", "1.37")
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


CORE = files("kubernetes_validate") / "kubernetes-json-schema"


@cache
def operators_schema(kind: str) -> Validator:
    return Draft7Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))


@cache
def core_schema(kind: str, api_version: str, version: str) -> Validator:
    """As `kubernetes_validate.validate(…, strict=True)` does it, which reads a megabyte anew for each manifest."""
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    schema = json.loads((CORE / f"v{version}.0-local-strict" / f"{name}.json").read_text())
    return Draft202012Validator(schema, registry=definitions(version))


@cache
def definitions(version: str) -> Registry[Any]:
    """What the schemas of that version refer to."""
    content = json.loads((CORE / f"v{version}.0-local-strict" / "_definitions.json").read_text())
    resource = Resource.from_contents(content, default_specification=DRAFT202012)
    return resource @ Registry[Any]()


def told(validator: Validator, manifest: dict[str, Any]) -> Iterator[str]:
    for error in validator.iter_errors(manifest):  # pyright: ignore[reportUnknownMemberType]  # as typed
        yield f"{error.json_path}: {error.message}"


@cache
def complaints(text: str) -> tuple[str, ...]:
    """What is wrong with one manifest, which many overlays have alike."""
    manifest: dict[str, Any] = json.loads(text)
    kind = manifest["kind"]
    if kind in GROUPS:
        assert manifest["apiVersion"] == GROUPS[kind]
        return tuple(told(operators_schema(kind), manifest))
    validators = [core_schema(kind, manifest["apiVersion"], version) for version in VERSIONS]
    return tuple(complaint for validator in validators for complaint in told(validator, manifest))


@pytest.mark.parametrize("overlay", [*OVERLAYS, *VARIANTS])
def test_every_manifest_is_valid(overlay: str) -> None:
    wrong = {
        f"{manifest['kind']} {manifest['metadata']['name']}": found
        for manifest in rendered(overlay)
        if (found := complaints(json.dumps(manifest, sort_keys=True)))
    }
    assert not wrong


def test_the_policy_on_the_page_is_valid() -> None:
    page = (K8S.parent / "docs/operations/kubernetes.md").read_text()
    (text,) = re.findall(r"^```yaml\n(apiVersion: networking.*?)^```", page, re.M | re.S)
    assert not complaints(json.dumps(yaml.safe_load(text), sort_keys=True))


def test_the_schemas_refuse_what_no_kind_has() -> None:
    for kind in GROUPS:
        manifest = next(m for name in (*OVERLAYS, *VARIANTS) for m in rendered(name) if m["kind"] == kind)
        assert not complaints(json.dumps(manifest))
        broken = {**manifest, "spec": {**manifest["spec"], "replcas": 1}}
        assert complaints(json.dumps(broken)), kind
    service = next(m for m in rendered("overlays/dev") if m["kind"] == "Service")
    assert complaints(json.dumps({**service, "spec": {**service["spec"], "port": 80}}))
