"""What network policies say, read as a network plugin reads them: for tests that ask who may talk to whom."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from k8s_manifests import Manifest, of_kind

Labels = dict[str, str]


def chosen(selector: Any, labels: Labels) -> bool:
    """Whether a selector chooses something with these labels. An empty one chooses everything."""
    wanted: Labels = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in expressions)
    return wanted.items() <= labels.items() and all(labels.get(e["key"]) in e["values"] for e in expressions)


def named(namespace: str) -> Labels:
    return {"kubernetes.io/metadata.name": namespace}


def is_peer(peer: Any, *, address: str | None, pod: Labels | None, namespace: str | None) -> bool:
    if "ipBlock" in peer:
        if address is None:
            return False
        block = peer["ipBlock"]
        inside = [ip_address(address) in ip_network(cidr) for cidr in (block["cidr"], *block.get("except", ()))]
        return inside[0] and not any(inside[1:])
    if "namespaceSelector" in peer:
        return namespace is not None and chosen(peer["namespaceSelector"], named(namespace))
    return namespace is None and pod is not None and chosen(peer["podSelector"], pod)


def lets(
    manifests: Sequence[Manifest],
    direction: str,
    labels: Labels,
    port: int | str,
    *,
    protocol: str = "TCP",
    address: str | None = None,
    pod: Labels | None = None,
    namespace: str | None = None,
) -> bool:
    """Whether a pod with these labels may connect to (Egress) or be reached from (Ingress) the other side, which is an
    address, a pod of the same namespace or any pod of another one."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        spec = policy["spec"]
        if direction not in spec["policyTypes"] or not chosen(spec["podSelector"], labels):
            continue
        for rule in spec.get(direction.lower(), ()):
            peers = rule.get("to" if direction == "Egress" else "from")
            to_peer = peers is None or any(is_peer(p, address=address, pod=pod, namespace=namespace) for p in peers)
            if to_peer and {"protocol": protocol, "port": port} in rule["ports"]:
                return True
    return False
