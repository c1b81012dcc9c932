"""The pages on Kubernetes say what the manifests say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from k8s_manifests import K8S, OVERLAYS, container, needs_kubectl, of_kind, one, ours, rendered, settings_of
from k8s_policies import lets

SCHEMAS = Path(__file__).parents[1] / "fixtures" / "k8s_schemas"
README = (K8S / "README.md").read_text()
PAGE = (K8S.parent / "docs/operations/kubernetes.md").read_text()


def test_every_component_and_overlay_is_named() -> None:
    table = README[README.index("| component |") :]
    named = set(re.findall(r"`([a-z-]+)`", table))
    named |= {f"profile{ending}" for ending in named if ending.startswith("-")}
    assert {path.name for path in (K8S / "components").iterdir()} <= named
    for overlay in OVERLAYS:
        assert overlay.removeprefix("overlays/") in README or overlay.removeprefix("overlays/") in PAGE


def test_files_that_the_page_names_exist() -> None:
    for path in re.findall(r"`((?:base|components|overlays|k8s)/[\w./-]+)`", README + PAGE):
        assert (K8S / path).exists() or (K8S.parent / path).exists(), path
    for overlay in re.findall(r"k8s/rollout\.sh (\S+)", README + PAGE):
        assert (K8S.parent / overlay.rstrip("`") / "kustomization.yaml").exists()


def test_the_command_makes_rules_of_the_operators_kind() -> None:
    command = re.search(r"^(for rules in .*?^done)", PAGE, re.M | re.S)
    assert command is not None
    done = subprocess.run(
        ["sh", "-euc", command[1]], cwd=K8S.parent, capture_output=True, text=True, timeout=30, check=True
    )
    rules = list(yaml.safe_load_all(done.stdout))
    assert {rule["metadata"]["name"] for rule in rules} >= {"waystation-alerts", "waystation-recording"}
    for rule in rules:
        validator = Draft7Validator(json.loads((SCHEMAS / "PrometheusRule.json").read_text()))
        validator.validate(rule)  # pyright: ignore[reportUnknownMemberType]  # as typed
        assert rule["spec"]["groups"]


@needs_kubectl
def test_the_policy_for_a_database_elsewhere_lets_migrations_and_processes_to_it_before_they_start() -> None:
    text = re.search(r"^```yaml\n(apiVersion: networking.*?)^```", PAGE, re.M | re.S)
    assert text is not None
    policy = yaml.safe_load(text[1])
    # What rollout.sh applies first.
    assert policy["metadata"]["labels"]["app.kubernetes.io/component"] == "config"
    manifests = rendered("overlays/production")
    for _, template in ours(manifests):
        labels = template["metadata"]["labels"]
        assert not lets(manifests, "Egress", labels, 6543, address="203.0.113.5")
        assert lets([*manifests, policy], "Egress", labels, 6543, address="203.0.113.5")


def test_a_database_that_is_scraped_is_no_process_for_the_alerts() -> None:
    """They look at every job `waystation.*`: a database among them would hide that no process is there."""
    text = re.search(r"^```yaml\n(apiVersion: monitoring.*?)^```", PAGE, re.M | re.S)
    assert text is not None
    spec = yaml.safe_load(text[1])["spec"]
    rules = (K8S.parent / "deploy/prometheus/rules/waystation-alerts.yml").read_text()
    (jobs,) = {str(found) for found in re.findall(r'job=~"([^"]+)"', rules)}
    for endpoint in spec["podMetricsEndpoints"]:
        names: list[str] = [rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"]
        assert names
        assert not any(re.fullmatch(jobs, name) for name in names)


@needs_kubectl
def test_a_restart_for_a_new_secret_is_of_our_processes_alone() -> None:
    """Redis beside them would drop every live stream."""
    commands = re.findall(r"rollout restart deployment -l (\S+=\w+)", PAGE)
    assert PAGE.count("rollout restart deployment") == len(commands) > 0
    for command in commands:
        key, _, value = command.partition("=")
        for manifest in of_kind(rendered("overlays/production"), "Deployment"):
            chosen = manifest["metadata"]["labels"].get(key) == value
            assert chosen == (manifest["metadata"]["name"] != "waystation-redis")


@needs_kubectl
def test_the_pods_that_a_site_waits_for_are_those_that_run_and_no_migrations() -> None:
    """A Job's pod stays for an hour after it is done."""
    awaited = re.findall(r"wait pod -l '([^']+)' --for=delete", PAGE)
    assert awaited == ["app.kubernetes.io/component in (api,worker)"]
    templates = [template for _, template in ours(rendered("overlays/production"))]
    assert {template["metadata"]["labels"]["app.kubernetes.io/component"] for template in templates} == {
        "api",
        "worker",
        "migrate-pre",
        "migrate-post",
    }


@needs_kubectl
@pytest.mark.parametrize(
    ("profile", "overlay"), [("light", "hpa-light"), ("standard", "overlays/production"), ("heavy", "hpa-heavy")]
)
def test_the_table_of_sizes_is_that_of_the_profiles(profile: str, overlay: str) -> None:
    manifests = rendered(overlay)
    templates = dict(ours(manifests))
    sizes = {name: container(templates[f"waystation-{name}"])["resources"] for name in ("api", "worker")}

    def said(requests: dict[str, str]) -> str:
        cpu = requests["cpu"] if requests["cpu"].endswith("m") else f"{requests['cpu']} CPU"
        return f"{cpu}, {requests['memory']}"

    slots = settings_of(manifests)["N_JOBS_PER_WORKER"]
    api, worker = sizes["api"]["requests"], sizes["worker"]["requests"]
    limit = sizes["worker"]["limits"]["memory"]
    assert f"| `{profile}` | {slots} | {said(api)} | {said(worker)} ({limit}) |" in PAGE


@needs_kubectl
def test_the_sum_of_connections_and_the_times_are_the_manifests() -> None:
    manifests = rendered("overlays/production")
    each = 2 * int(settings_of(manifests)["LANGGRAPH_POSTGRES_POOL_MAX_SIZE"]) + 4
    processes = sum(scaled["spec"]["maxReplicaCount"] + 1 for scaled in of_kind(manifests, "ScaledObject"))
    cluster = one(rendered("gateway-cnpg"), "Cluster", "waystation-db")
    room = cluster["spec"]["postgresql"]["parameters"]["max_connections"]
    assert f"{processes} × {each} = {processes * each}" in PAGE
    assert f"has {room})" in PAGE
    templates = dict(ours(manifests))
    grace_s = settings_of(manifests)["BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS"]
    for name, sentence in (
        ("api", "{} = preStop 10 + `BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS` {} + 20"),
        ("worker", "{} = {} + 20"),
    ):
        pod_s = templates[f"waystation-{name}"]["spec"]["terminationGracePeriodSeconds"]
        assert sentence.format(pod_s, grace_s) in PAGE
