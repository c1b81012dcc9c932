"""What Kubernetes would do with our pods, read from the very manifests in k8s/."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml

K8S = Path(__file__).parents[2] / "k8s"


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP probe; times in seconds."""

    path: str
    period_s: float
    timeout_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class PodRules:
    """How a pod is started, watched and ended; times in seconds."""

    component: str
    command: tuple[str, ...]
    environ: dict[str, str]
    startup: Probe
    readiness: Probe
    min_ready_s: float
    pre_stop_s: float
    grace_s: float

    def quicker(self, factor: float) -> PodRules:
        """The same with all times divided, but for what a start may take: processes do not start quicker for that."""
        grace = float(self.environ["BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS"]) / factor
        return replace(
            self,
            environ={**self.environ, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": f"{grace:.0f}"},
            startup=replace(
                self.startup, period_s=self.startup.period_s / factor, failures=int(self.startup.failures * factor)
            ),
            readiness=replace(self.readiness, period_s=self.readiness.period_s / factor),
            min_ready_s=self.min_ready_s / factor,
            pre_stop_s=self.pre_stop_s / factor,
            grace_s=self.grace_s / factor,
        )


def pod_rules(component: str) -> PodRules:
    """The rules of `api` or `worker`, of the base that all overlays share."""
    manifest = cast("dict[str, Any]", yaml.safe_load((K8S / f"base/{component}/deployment.yaml").read_text()))
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    if hook[0] != "sleep":
        raise ValueError(f"the preStop of {component} is {hook}, and only sleep is imitated here")
    return PodRules(
        component=component,
        command=tuple(container["args"]),
        environ=_environ(),
        startup=_probe(container["startupProbe"]),
        readiness=_probe(container["readinessProbe"]),
        min_ready_s=float(spec.get("minReadySeconds", 0)),
        pre_stop_s=float(hook[1]),
        grace_s=float(pod["terminationGracePeriodSeconds"]),
    )


def _probe(given: dict[str, Any]) -> Probe:
    return Probe(
        path=given["httpGet"]["path"],
        period_s=float(given.get("periodSeconds", 10)),
        timeout_s=float(given.get("timeoutSeconds", 1)),
        failures=int(given.get("failureThreshold", 3)),
    )


def _environ() -> dict[str, str]:
    lines = (K8S / "base/common/config.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
