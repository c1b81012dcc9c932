"""KEDA and the HorizontalPodAutoscaler it drives, by the rules of a ScaledObject and with the real queries.

    every sync    each trigger's query -> how many pods it wants; the largest wins
    upwards       at once, as far as the policies allow within their periods
    downwards     not below what was wanted at any time within the stabilisation window, and by the policies

`cooldownPeriod` plays no part: it is about going to zero, and there is a minimum.
Rules: the HPA's documented algorithm, with its default tolerance of 0.1 and sync period of 15 s.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, LiteralString, cast

import yaml
from psycopg import AsyncConnection

from bench.rollouts.manifests import K8S, pod_rules

SYNC_S = 15.0
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Trigger:
    """A query and its target. `per_pod` (AverageValue): the target is what one pod can take."""

    name: str
    query: str
    target: float
    per_pod: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `value` pods, or percent of the pods, in `period_s`."""

    value: int
    percent: bool
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """A ScaledObject."""

    triggers: tuple[Trigger, ...]
    up: tuple[Policy, ...]
    down: tuple[Policy, ...]
    stabilise_down_s: float
    minimum: int
    maximum: int


def rules_of(name: str, *, minimum: int, maximum: int, factor: float) -> Rules:
    """The rules of a ScaledObject in k8s/, with the times divided by `factor`, those it measures included."""
    documents = yaml.safe_load_all((K8S / "components/keda/scaled-objects.yaml").read_text())
    spec = next(one["spec"] for one in list[Any](documents) if one["metadata"]["name"] == name)
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    slots = float(pod_rules("worker").environ["N_JOBS_PER_WORKER"])  # Kustomize puts it in as the target of depth
    triggers = [
        Trigger(
            trigger["name"],
            trigger["metadata"]["query"],
            slots if trigger["name"] == "depth" else float(trigger["metadata"]["targetQueryValue"]) / factor,
            trigger["metricType"] == "AverageValue",
        )
        for trigger in spec["triggers"]
    ]
    return Rules(
        tuple(triggers),
        _policies(behavior["scaleUp"], factor),
        _policies(behavior["scaleDown"], factor),
        behavior["scaleDown"]["stabilizationWindowSeconds"] / factor,
        minimum,
        maximum,
    )


def _policies(given: Any, factor: float) -> tuple[Policy, ...]:
    return tuple(
        Policy(int(one["value"]), one["type"] == "Percent", float(one["periodSeconds"]) / factor)
        for one in given["policies"]
    )


@dataclass
class Autoscaler:
    """Decides how many pods there are to be; `now` is any clock that goes on."""

    rules: Rules
    _wanted: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _changes: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    async def measure(self, conn: AsyncConnection[Any]) -> dict[str, float]:
        """What the triggers' queries say now."""
        values: dict[str, float] = {}
        for trigger in self.rules.triggers:
            row = await (await conn.execute(cast(LiteralString, trigger.query))).fetchone()
            values[trigger.name] = float(row[0]) if row else 0.0
        return values

    def decide(self, now: float, pods: int, values: dict[str, float]) -> int:
        """How many pods there are to be, given what the triggers say."""
        wanted = max(_wanted(trigger, values[trigger.name], pods) for trigger in self.rules.triggers)
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - self.rules.stabilise_down_s:
            self._wanted.popleft()
        if wanted > pods:
            wanted = min(wanted, max(self._highest(policy, now, pods) for policy in self.rules.up))
        elif (wanted := min(pods, max(past for _, past in self._wanted))) < pods:
            wanted = max(wanted, min(self._lowest(policy, now, pods) for policy in self.rules.down))
        wanted = min(self.rules.maximum, max(self.rules.minimum, wanted))
        if wanted != pods:
            self._changes.append((now, wanted - pods))
        return wanted

    def _highest(self, policy: Policy, now: float, pods: int) -> int:
        before = pods - sum(n for at, n in self._changes if n > 0 and at > now - policy.period_s)
        return math.ceil(before * (1 + policy.value / 100)) if policy.percent else before + policy.value

    def _lowest(self, policy: Policy, now: float, pods: int) -> int:
        before = pods - sum(n for at, n in self._changes if n < 0 and at > now - policy.period_s)
        return int(before * (1 - policy.value / 100)) if policy.percent else before - policy.value


def _wanted(trigger: Trigger, value: float, pods: int) -> int:
    ratio = value / (trigger.target * max(1, pods)) if trigger.per_pod else value / trigger.target
    return pods if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * max(1, pods) - 1e-9)
