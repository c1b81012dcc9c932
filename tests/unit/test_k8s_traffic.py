"""Who can talk to whom, as the manifests' network policies and addresses say it: what has to work is let through, what
the page promises to refuse is not."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest

from k8s_manifests import OVERLAYS, VARIANTS, Manifest, container, needs_kubectl, of_kind, one, ours, pods, rendered
from k8s_policies import Labels, chosen, lets

pytestmark = needs_kubectl

ALL = pytest.mark.parametrize("overlay", [*OVERLAYS, *VARIANTS])


def labels_of(manifests: Sequence[Manifest], name: str) -> Labels:
    return dict(pods(manifests))[name]["metadata"]["labels"]


@ALL
def test_every_pod_finds_names_whichever_way_the_cluster_answers_them(overlay: str) -> None:
    manifests = rendered(overlay)
    for _, template in pods(manifests):
        labels = template["metadata"]["labels"]
        for protocol in ("UDP", "TCP"):
            assert lets(manifests, "Egress", labels, 53, protocol=protocol, namespace="kube-system")
            for address in ("169.254.20.10", "169.254.169.254"):
                assert lets(manifests, "Egress", labels, 53, protocol=protocol, address=address)
        # The cloud's metadata, credentials among it, is at the same address.
        for port in (80, 443):
            assert not lets(manifests, "Egress", labels, port, address="169.254.169.254")


@ALL
def test_every_process_and_migration_reaches_databases_on_private_addresses_alone(overlay: str) -> None:
    manifests = rendered(overlay)
    for name, template in ours(manifests):
        labels = template["metadata"]["labels"]
        for port in (5432, 6432, 6379, 6380):
            for private in ("10.1.2.3", "172.20.0.9", "192.168.7.7", "100.64.3.3", "fd00::17"):
                assert lets(manifests, "Egress", labels, port, address=private), f"{name} to {private}:{port}"
            assert not lets(manifests, "Egress", labels, port, address="52.1.2.3")


@ALL
def test_models_are_reached_and_private_networks_are_not(overlay: str) -> None:
    manifests = rendered(overlay)
    for _, template in ours(manifests, "api", "worker"):
        labels = template["metadata"]["labels"]
        assert lets(manifests, "Egress", labels, 443, address="52.1.2.3")
        assert lets(manifests, "Egress", labels, 443, address="2606:4700::6810:1")
        assert not any(lets(manifests, "Egress", labels, 443, address=a) for a in ("10.0.0.1", "100.64.0.1", "fd00::1"))
        assert all(lets(manifests, "Egress", labels, port, namespace="monitoring") for port in (4317, 4318))


@ALL
def test_workers_reach_the_api_by_the_services_port_and_by_the_pods(overlay: str) -> None:
    """Some network plugins judge before the Service's address is translated, the others after."""
    manifests = rendered(overlay)
    api, worker = (labels_of(manifests, f"waystation-{name}") for name in ("api", "worker"))
    service = one(manifests, "Service", "waystation-api")["spec"]["ports"][0]["port"]
    pod = container(dict(ours(manifests))["waystation-api"])["ports"][0]["containerPort"]
    assert all(lets(manifests, "Egress", worker, port, pod=api) for port in (service, pod))
    assert lets(manifests, "Ingress", api, "http", pod=worker)
    assert lets(manifests, "Ingress", api, "http", namespace="gateways" if "gateway" in overlay else "ingress-nginx")
    assert lets(manifests, "Ingress", api, "http", namespace="monitoring")
    assert lets(manifests, "Ingress", worker, "health", namespace="monitoring")
    assert not lets(manifests, "Ingress", api, "http", namespace="default")


@ALL
def test_databases_in_the_cluster_are_reached_by_processes_migrations_and_keda(overlay: str) -> None:
    manifests = rendered(overlay)
    inside = [(t["metadata"]["labels"], "postgres") for n, t in pods(manifests) if n == "waystation-postgres"]
    inside += [({"cnpg.io/cluster": "waystation-db"}, 5432) for _ in of_kind(manifests, "Cluster")]
    for database, port in inside:
        for _, template in ours(manifests):
            labels = template["metadata"]["labels"]
            assert lets(manifests, "Egress", labels, 5432, pod=database)
            assert lets(manifests, "Ingress", database, port, pod=labels)
        assert lets(manifests, "Ingress", database, port, namespace="keda")
        assert not lets(manifests, "Ingress", database, port, namespace="default")
        if "cnpg.io/cluster" in database:
            assert lets(manifests, "Ingress", database, 8000, namespace="cnpg-system")
            assert all(lets(manifests, "Egress", database, p, address="10.96.0.1") for p in (443, 6443))
            assert all(lets(manifests, way, database, p, pod=database) for way in WAYS for p in (5432, 8000))


WAYS = ("Ingress", "Egress")


@ALL
def test_keda_connects_by_a_name_that_means_the_same_in_its_own_namespace(overlay: str) -> None:
    """KEDA asks from the namespace keda, where `waystation-postgres` alone is nobody. What CloudNativePG writes into
    its own secrets has the namespace."""
    manifests = rendered(overlay)
    namespace = of_kind(manifests, "Namespace")[0]["metadata"]["name"]
    addresses = [
        base64.b64decode(secret["data"]["DATABASE_URI"]).decode()
        for secret in of_kind(manifests, "Secret")
        if "DATABASE_URI" in secret["data"]
    ]
    for external in of_kind(manifests, "ExternalSecret"):
        written = external["spec"]["target"].get("template", {}).get("data", {})
        addresses += [value for key, value in written.items() if key == "uri"]
    for address in addresses:
        host = urlsplit(re.sub(r"{{.*?}}", "password", address)).hostname
        assert host is not None
        assert host.endswith(f".{namespace}")


def test_a_password_of_any_characters_fits_into_the_address_of_the_database() -> None:
    secret = one(rendered("overlays/multi-region/primary"), "ExternalSecret", "waystation-db-app")
    # `urlquery` alone makes a space a plus, which an address does not read as one.
    assert '{{ .password | urlquery | replace "+" "%20" }}@' in secret["spec"]["target"]["template"]["data"]["uri"]


@pytest.mark.parametrize("overlay", ["overlays/production", "overlays/canary", "hpa-heavy", "rollouts"])
def test_each_pod_is_scraped_once_and_a_canarys_too(overlay: str) -> None:
    """A Rollout narrows the selectors of its two Services to one version each: neither has all pods."""
    manifests = rendered(overlay)
    narrowed = {
        canary[name]
        for rollout in of_kind(manifests, "Rollout")
        for canary in [rollout["spec"]["strategy"]["canary"]]
        for name in ("stableService", "canaryService")
    }
    monitors = of_kind(manifests, "ServiceMonitor")
    for _, template in ours(manifests, "api", "worker"):
        labels = template["metadata"]["labels"]
        scraped = [
            (monitor, service)
            for monitor in monitors
            for service in of_kind(manifests, "Service")
            if chosen(monitor["spec"]["selector"], service["metadata"]["labels"])
            and service["spec"].get("selector", {"": ""}).items() <= labels.items()
        ]
        ((monitor, service),) = scraped
        assert service["metadata"]["name"] not in narrowed
        # Alerts know the processes by it.
        by_label = service["metadata"]["labels"].get(monitor["spec"].get("jobLabel", ""))
        assert (by_label or service["metadata"]["name"]).removesuffix("-canary") in {
            "waystation-api",
            "waystation-worker",
        }
