"""What the manifests say of the server is what its code has: commands, ports, probes, variables, metrics, times."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml
from prometheus_client import Counter, Gauge, Histogram

from k8s_manifests import (
    K8S,
    OVERLAYS,
    VARIANTS,
    Manifest,
    container,
    needs_kubectl,
    of_kind,
    one,
    ours,
    rendered,
    settings_of,
)
from monitoring_files import promtool
from waystation.app import operations
from waystation.cli.commands import app
from waystation.cli.health import create_health_app
from waystation.config import Settings, settings_environment
from waystation.telemetry import metrics

pytestmark = needs_kubectl

ALL = pytest.mark.parametrize("overlay", [*OVERLAYS, *VARIANTS])
NOT_OURS = {"HOME", "PYTHONDONTWRITEBYTECODE"}
"""Variables that Python and its libraries read."""
EXIT_SPARE_S = 20
"""What a pod has beyond preStop and the server's own grace: to be told, to close, to be cut short by itself."""


def served(component: str) -> set[str]:
    """The paths that answer GET in the process of that component."""
    if component == "api":
        return {operation.path for operation in operations() if "GET" in (operation.methods or ())}

    def never() -> Any:
        raise AssertionError("not started")

    return {operation.path for operation in create_health_app(never).operations if "GET" in (operation.methods or ())}


@lru_cache
def parsed(arguments: tuple[str, ...]) -> Mapping[str, Any]:
    """The options of `waystation <command> …` as the command itself reads them. Unknown ones raise."""
    name, *rest = arguments
    command = cast(Any, typer.main.get_command(app)).commands[name]
    return command.make_context(name, list(rest)).params


def metric_names() -> set[str]:
    """The names by which Prometheus knows our metrics."""
    names: set[str] = set()
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.collect()
            match family.type:
                case "counter":
                    names.add(f"{family.name}_total")
                case "histogram":
                    names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
                case _:
                    names.add(family.name)
    return names


def queries(manifests: list[Manifest]) -> Iterator[str]:
    """Every expression or name of a metric."""
    for autoscaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        yield from (m["pods"]["metric"]["name"] for m in autoscaler["spec"]["metrics"] if m["type"] == "Pods")
    for template in of_kind(manifests, "AnalysisTemplate"):
        yield from (m["provider"]["prometheus"]["query"] for m in template["spec"]["metrics"])


@ALL
def test_pods_run_commands_that_exist_on_the_ports_that_are_declared(overlay: str) -> None:
    for name, template in ours(rendered(overlay)):
        spec = container(template)
        program, *arguments = spec["args"]
        options = parsed(tuple(arguments))
        assert program == "waystation"
        ports = {port["name"]: port["containerPort"] for port in spec.get("ports", ())}
        match template["metadata"]["labels"]["app.kubernetes.io/component"]:
            case "api":
                assert (arguments[0], options["port"], options["host"]) == ("serve", ports["http"], "0.0.0.0")
            case "worker":
                assert (arguments[0], options["health_port"]) == ("worker", ports["health"])
                assert options["health_host"] == "0.0.0.0"
            case other:
                assert (arguments[0], f"migrate-{options['phase']}", ports) == ("migrate", other, {}), name


@ALL
def test_probes_ask_paths_that_the_process_serves(overlay: str) -> None:
    for name, template in ours(rendered(overlay), "api", "worker"):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        spec = container(template)
        ports = {port["name"] for port in spec["ports"]}
        probes = {kind: spec[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert {probe["path"] for probe in probes.values()} <= served(component), name
        assert {probe["port"] for probe in probes.values()} <= ports
        # A process that waits for a dependency must not be killed for it.
        assert (probes["livenessProbe"]["path"], probes["readinessProbe"]["path"]) == ("/health", "/ready")


@ALL
def test_scrapes_ask_a_path_that_is_served_on_a_port_that_the_service_has(overlay: str) -> None:
    manifests = rendered(overlay)
    for monitor in of_kind(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        services = [s for s in of_kind(manifests, "Service") if wanted.items() <= s["metadata"]["labels"].items()]
        assert services
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["path"] in served(wanted["app.kubernetes.io/component"])
            assert all(endpoint["port"] in {p["name"] for p in service["spec"]["ports"]} for service in services)


@ALL
def test_every_variable_is_a_setting_and_its_value_is_accepted(overlay: str) -> None:
    manifests = rendered(overlay)
    known = {name for source in settings_environment().values() for name in source.names}
    environ = settings_of(manifests)
    for secret in of_kind(manifests, "Secret"):
        if secret["metadata"]["name"].startswith("waystation-secrets"):
            environ |= dict.fromkeys(secret["data"], "")
    for _, template in ours(manifests):
        environ |= {entry["name"]: entry.get("value", "") for entry in container(template)["env"]}
    assert set(environ) - NOT_OURS <= known
    Settings.load({name: value for name, value in environ.items() if name not in NOT_OURS})


@ALL
def test_metrics_in_the_manifests_exist(overlay: str) -> None:
    used = {name for query in queries(rendered(overlay)) for name in re.findall(r"\b(?:waystation|agent)_\w+", query)}
    assert used <= metric_names()


def test_prometheus_can_read_the_questions_of_the_analysis(tmp_path: Path) -> None:
    template = one(rendered("rollouts"), "AnalysisTemplate", "waystation-api")
    given = {argument["name"] for argument in template["spec"]["args"]}
    asked = list(queries([template]))
    assert {name for query in asked for name in re.findall(r"{{args\.(\w+)}}", query)} <= given
    rules = [{"record": f"analysis:{n}", "expr": query} for n, query in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "analysis", "rules": rules}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_of_the_adapter_are_those_that_the_autoscalers_ask_for() -> None:
    rules = yaml.safe_load((K8S / "components/hpa/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    offered = {rule["name"]["matches"] for rule in rules}
    assert offered == set(queries(rendered("hpa-heavy"))) == {"agent_active_tasks"}
    assert offered <= metric_names()
    assert all(rule["seriesQuery"].startswith(rule["name"]["matches"] + "{") for rule in rules)


@ALL
def test_a_pod_has_the_time_that_its_process_takes_to_stop(overlay: str) -> None:
    manifests = rendered(overlay)
    grace_s = Settings.load(settings_of(manifests)).shutdown_grace_s
    for name, template in ours(manifests, "api", "worker"):
        hooks = container(template).get("lifecycle", {"preStop": {"exec": {"command": ["sleep", "0"]}}})
        sleep, before_s = hooks["preStop"]["exec"]["command"]
        assert sleep == "sleep"
        pod_s = template["spec"]["terminationGracePeriodSeconds"]
        assert pod_s == int(before_s) + grace_s + EXIT_SPARE_S, name
        # Load balancers have forgotten an api before it stops; nobody sends anything to a worker.
        assert int(before_s) == (10 if template["metadata"]["labels"]["app.kubernetes.io/component"] == "api" else 0)


@ALL
def test_start_ups_have_the_time_of_an_import_and_readiness_that_of_a_check(overlay: str) -> None:
    from waystation.api.health import DEADLINE_S

    for _, template in ours(rendered(overlay), "api", "worker"):
        spec = container(template)
        startup = spec["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 180
        assert spec["readinessProbe"]["timeoutSeconds"] > DEADLINE_S


@ALL
def test_the_ingress_lets_through_what_the_server_takes_for_as_long_as_a_run_may_last(overlay: str) -> None:
    for ingress in of_kind(rendered(overlay), "Ingress"):
        noted = {
            key.removeprefix("nginx.ingress.kubernetes.io/"): value
            for key, value in ingress["metadata"]["annotations"].items()
        }
        if noted.get("canary") == "true":
            continue
        settings = Settings.load({})
        assert noted["proxy-body-size"] == f"{settings.max_body_bytes // 2**20}m"
        assert int(noted["proxy-read-timeout"]) == int(noted["proxy-send-timeout"]) == settings.bg_job_timeout_s
        assert noted["proxy-buffering"] == noted["proxy-request-buffering"] == "off"
        assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]


@ALL
def test_autoscalers_count_in_slots(overlay: str) -> None:
    manifests = rendered(overlay)
    slots = Settings.load(settings_of(manifests)).n_jobs_per_worker
    for autoscaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        for metric in autoscaler["spec"]["metrics"]:
            if metric["type"] == "Pods":
                assert int(metric["pods"]["target"]["averageValue"]) == slots * 0.8
    for scaled in of_kind(manifests, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            if trigger.get("name") == "depth":
                assert int(trigger["metadata"]["targetQueryValue"]) == slots


@ALL
def test_a_database_in_the_cluster_has_a_connection_for_all_that_processes_may_open(overlay: str) -> None:
    manifests = rendered(overlay)
    for cluster in of_kind(manifests, "Cluster"):
        room = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"]) - 10  # the operator's and KEDA's
        each = 2 * Settings.load(settings_of(manifests)).postgres_pool_max_size + 4
        most = sum(scaled["spec"]["maxReplicaCount"] + 1 for scaled in of_kind(manifests, "ScaledObject"))
        assert each * most <= room, f"{most} processes with {each} connections each"


def test_health_checks_are_answered_without_credentials() -> None:
    manifest = one(rendered("overlays/production"), "Deployment", "waystation-api")
    probe = container(manifest["spec"]["template"])["readinessProbe"]["httpGet"]
    assert not any("Authorization" in str(header) for header in probe.get("httpHeaders", ()))
