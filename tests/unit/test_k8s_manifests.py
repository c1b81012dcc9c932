"""What every overlay has to be, whatever else it is: pods without privileges, images with a tag, references that lead
somewhere, no secret in plain text, and rollouts without a gap."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from k8s_manifests import K8S, OVERLAYS, VARIANTS, container, needs_kubectl, of_kind, one, ours, pods, rendered
from waystation.config import settings_environment

pytestmark = needs_kubectl

ALL = pytest.mark.parametrize("overlay", [*OVERLAYS, *VARIANTS])
BY_OPERATORS = {"waystation-db-app", "waystation-tls"}
"""Secrets that CloudNativePG and cert-manager make."""


def test_the_overlays_are_those_that_the_docs_name() -> None:
    multi = "overlays/multi-region"
    assert {"overlays/dev", "overlays/production", "overlays/canary", f"{multi}/primary", f"{multi}/standby"} <= {
        *OVERLAYS
    }


def test_every_component_is_part_of_an_overlay_or_a_variant() -> None:
    used = {component for components in VARIANTS.values() for component in components}
    for path in K8S.glob("overlays/**/kustomization.yaml"):
        used |= set(re.findall(r"^  - .*components/([a-z-]+)$", path.read_text(), re.M))
    assert used == {path.name for path in (K8S / "components").iterdir()}


@ALL
def test_pods_have_no_privileges_and_cannot_write_their_image(overlay: str) -> None:
    for name, template in pods(rendered(overlay)):
        pod, only = template["spec"]["securityContext"], container(template)["securityContext"]
        assert pod["runAsNonRoot"], name
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert template["spec"]["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & template["spec"].keys()
        assert all("hostPath" not in volume for volume in template["spec"].get("volumes", ()))


@ALL
def test_the_namespace_lets_only_such_pods_in_and_default_denies(overlay: str) -> None:
    manifests = rendered(overlay)
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    names = {m["metadata"].get("namespace") for m in manifests if m["kind"] != "Namespace"}
    assert names == {namespace["metadata"]["name"]}
    deny = one(manifests, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@ALL
def test_images_have_a_tag_that_is_not_latest(overlay: str) -> None:
    for name, template in pods(rendered(overlay)):
        _, _, tag = container(template)["image"].rpartition("/")[2].partition(":")
        assert tag not in ("", "latest"), name
    for cluster in of_kind(rendered(overlay), "Cluster"):
        assert ":" in cluster["spec"]["imageName"]


def test_the_tag_of_our_image_stands_once_in_an_overlay() -> None:
    images = {container(template)["image"] for _, template in ours(rendered("overlays/production"))}
    assert images == {"registry.example.com/my-agents:1.0.0"}
    canary = {name: container(template)["image"] for name, template in ours(rendered("overlays/canary"))}
    new = {name for name, image in canary.items() if image.endswith(":1.1.0")}
    assert new == {"waystation-api-canary", "waystation-worker-canary", "waystation-migrate-pre"}


@ALL
def test_every_pod_says_what_it_needs_and_memory_is_bounded(overlay: str) -> None:
    for name, template in pods(rendered(overlay)):
        resources = container(template)["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"]
        # A throttled worker renews its leases late.
        assert "cpu" not in resources["limits"]


@ALL
def test_rollouts_have_no_gap(overlay: str) -> None:
    manifests = rendered(overlay)
    for name, template in ours(manifests, "api", "worker"):
        spec = one(manifests, "Deployment", name)["spec"]
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        spread = template["spec"]["topologySpreadConstraints"]
        assert {constraint["topologyKey"] for constraint in spread} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        labels = template["metadata"]["labels"]
        for constraint in spread:
            assert constraint["labelSelector"]["matchLabels"].items() <= labels.items()
        budgets = [
            budget
            for budget in of_kind(manifests, "PodDisruptionBudget")
            if budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        assert len(budgets) == 1, f"{name} has {len(budgets)}: evictions of a pod with two are refused"


@ALL
def test_budgets_never_keep_a_node_from_being_drained(overlay: str) -> None:
    """Nor one of a single pod: what may be unavailable is said, rounded up, and what has to stay is not."""
    for budget in of_kind(rendered(overlay), "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] in (1, "25%")
        assert "minAvailable" not in budget["spec"]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@ALL
def test_autoscaled_deployments_have_no_number_of_their_own(overlay: str) -> None:
    manifests = rendered(overlay)
    passive = "standby" in overlay
    for autoscaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        target = autoscaler["spec"]["scaleTargetRef"]
        spec = one(manifests, target["kind"], target["name"])["spec"]
        assert spec.get("replicas") == (0 if passive else None)
        pausing = autoscaler["metadata"].get("annotations", {})
        assert (pausing == {"autoscaling.keda.sh/paused-replicas": "0"}) == passive


@ALL
def test_references_lead_somewhere(overlay: str) -> None:
    manifests = rendered(overlay)
    named = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    secrets = {name for kind, name in named if kind == "Secret"} | BY_OPERATORS
    secrets |= {external["spec"]["target"]["name"] for external in of_kind(manifests, "ExternalSecret")}
    for _, template in pods(manifests):
        for source in container(template).get("envFrom", ()):
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in named
            else:
                assert source["secretRef"]["name"] in secrets
        for entry in container(template).get("env", ()):
            if "valueFrom" in entry:
                assert entry["valueFrom"]["secretKeyRef"]["name"] in secrets
    for authentication in of_kind(manifests, "TriggerAuthentication"):
        assert all(ref["name"] in secrets for ref in authentication["spec"]["secretTargetRef"])
    for ingress in of_kind(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert ("Service", path["backend"]["service"]["name"]) in named
    for route in of_kind(manifests, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert all(("Service", backend["name"]) in named for backend in rule.get("backendRefs", ()))
    for rollout in of_kind(manifests, "Rollout"):
        canary = rollout["spec"]["strategy"]["canary"]
        assert {("Service", canary["stableService"]), ("Service", canary["canaryService"])} <= named
        assert ("Ingress", canary["trafficRouting"]["nginx"]["stableIngress"]) in named
        assert all(("AnalysisTemplate", t["templateName"]) in named for t in canary["analysis"]["templates"])
        # A number in the Deployment would take pods away before the Rollout's serve, or bring them back at each apply.
        assert "replicas" not in one(manifests, "Deployment", rollout["spec"]["workloadRef"]["name"])["spec"]
        assert rollout["spec"]["workloadRef"]["scaleDown"] == "onsuccess"


@ALL
def test_services_find_pods_and_their_ports(overlay: str) -> None:
    manifests = rendered(overlay)
    templates = [template for _, template in pods(manifests)]
    for service in of_kind(manifests, "Service"):
        if service["metadata"]["name"] == "waystation-closed":
            assert "selector" not in service["spec"]
            continue
        selector = service["spec"]["selector"]
        found = [t for t in templates if selector.items() <= t["metadata"]["labels"].items()]
        assert len(found) == 1, f"{service['metadata']['name']} finds the pods of {len(found)}"
        ports = {port["name"] for port in container(found[0])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@ALL
def test_every_object_belongs_to_a_step_of_the_rollout(overlay: str) -> None:
    for manifest in rendered(overlay):
        assert manifest["metadata"]["labels"]["app.kubernetes.io/component"] in {
            *("config", "postgres", "redis", "migrate-pre", "migrate-post"),
            *("api", "api-canary", "api-pods", "worker", "ingress", "monitoring", "autoscaling"),
        }


SECRET_NAMES = {name for source in settings_environment().values() if source.secret for name in source.names}
SECRETIVE = re.compile(r"(PASSWORD|SECRET|TOKEN|API_KEY)$")


@ALL
def test_no_secret_is_in_plain_text_but_in_the_fallback(overlay: str) -> None:
    manifests = rendered(overlay)
    values: dict[str, str] = {}
    for config in of_kind(manifests, "ConfigMap"):
        values |= config["data"]
    for _, template in pods(manifests):
        values |= {entry["name"]: entry.get("value", "") for entry in container(template).get("env", ())}
    for name, value in values.items():
        if name in SECRET_NAMES or SECRETIVE.search(name):
            assert "@" not in value, name
            assert value == "" or value.startswith("redis://waystation-redis:")
    if overlay.startswith("overlays/") and overlay != "overlays/dev":
        assert not of_kind(manifests, "Secret")


def test_the_only_passwords_in_the_folder_are_those_of_the_fallback() -> None:
    with_password = {
        str(path.relative_to(K8S))
        for path in K8S.rglob("*")
        if path.is_file() and re.search(r"://[^/\s:{]+:[^@\s{]+@|PASSWORD=\S", path.read_text())
    }
    assert with_password == {"components/secrets-plain/secrets.env", "components/secrets-plain/postgres.env"}


def test_the_fallbacks_two_passwords_are_one() -> None:
    def data(name: str) -> dict[str, str]:
        found: dict[str, Any] = one(rendered("overlays/dev"), "Secret", name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in found.items()}

    password = data("waystation-postgres")["POSTGRES_PASSWORD"]
    assert f":{password}@" in data("waystation-secrets")["DATABASE_URI"]


def test_the_two_sites_of_a_home_differ_in_who_leads_and_in_nothing_that_clients_see() -> None:
    def things(overlay: str) -> dict[tuple[str, str], Any]:
        return {(m["kind"], m["metadata"]["name"]): m for m in rendered(f"overlays/multi-region/{overlay}")}

    primary, standby = things("primary"), things("standby")
    assert primary.keys() - standby.keys() == {("Job", "waystation-migrate-pre"), ("Job", "waystation-migrate-post")}
    assert {key for key in standby if primary[key] != standby[key]} == {
        ("Cluster", "waystation-db"),
        ("Deployment", "waystation-api"),
        ("Deployment", "waystation-worker"),
        ("ScaledObject", "waystation-api"),
        ("ScaledObject", "waystation-worker"),
    }
    replica = {
        overlay: things(overlay)[("Cluster", "waystation-db")]["spec"]["replica"]
        for overlay in ("primary", "standby", "failover/primary", "failover/standby")
    }
    assert replica == {
        "primary": {"self": "eu", "primary": "eu", "source": "us"},
        "standby": {"self": "us", "primary": "eu", "source": "eu"},
        "failover/primary": {"self": "us", "primary": "us", "source": "eu"},
        "failover/standby": {"self": "eu", "primary": "us", "source": "us"},
    }
    after = things("failover/primary")
    assert {key for key in primary if primary[key] != after[key]} == {("Cluster", "waystation-db")}
