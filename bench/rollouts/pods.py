"""Processes that live and go as pods do: start-up gate, readiness, preStop, SIGTERM, grace period, SIGKILL.

rollout of one pod   new process -> startup probe -> readiness -> minReadySeconds -> the old one is deleted
deletion             leaves the Service after the propagation delay; at the same moment preStop begins, then SIGTERM
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO

import httpx

from bench.rollouts.balancer import Balancer
from bench.rollouts.manifests import PodRules
from bench.servers import free_port

_OWN = ("DATABASE", "POSTGRES", "REDIS", "LANGSERVE", "LANGGRAPH", "WAYSTATION", "N_JOBS", "BG_JOB", "LOG_")


class RolloutFailed(RuntimeError):
    """A pod did not become ready; the message holds what it said last."""


@dataclass(eq=False)
class Pod:
    """One process of a deployment."""

    name: str
    rules: PodRules
    port: int
    log: IO[bytes]
    process: asyncio.subprocess.Process
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended_s: float | None = None
    """From the deletion to the end of the process."""
    was_killed: bool = False


@dataclass
class Deployment:
    """Pods of one component. `service`: who sends them requests; workers have none."""

    rules: PodRules
    folder: Path
    environ: Mapping[str, str]
    service: Balancer | None = None
    propagation_s: float = 1.0
    source: Path | None = None
    """A checkout whose code the pods run instead of this one's."""
    pods: list[Pod] = field(default_factory=list[Pod])
    gone: list[Pod] = field(default_factory=list[Pod])
    _watching: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    wanted: int = 0
    _deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _made: int = 0

    async def scale_to(self, count: int) -> None:
        """Start pods, or delete the youngest, until there are so many; may be called again meanwhile."""
        self.wanted, new = count, list[Pod]()
        async with self._deciding:
            while len(self.pods) < self.wanted:
                new.append(await self._start())
                self.pods.append(new[-1])
            spare = self.pods[self.wanted :]
            del self.pods[self.wanted :]
        await asyncio.gather(*(self._until_ready(pod) for pod in new), *(self._delete(pod) for pod in spare))

    @property
    def ready(self) -> int:
        """How many pods are ready, those about to go included."""
        going = [pod for pod in self.gone if pod.ended_s is None]
        return sum(pod.is_ready.is_set() for pod in (*self.pods, *going))

    async def replace_all(self, *, source: Path | None = None) -> None:
        """A rolling update, with one pod more than there should be and never one fewer (maxSurge 1)."""
        self.source = source or self.source
        for old in list(self.pods):
            new = await self._start()
            await self._until_ready(new)
            await asyncio.sleep(self.rules.min_ready_s)
            self.pods[self.pods.index(old)] = new
            await self._delete(old)

    async def end(self) -> None:
        """End everything, gently where it goes quickly."""
        for pod in self.pods:
            if pod.process.returncode is None:
                pod.process.terminate()
        for pod in self.pods:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await pod.process.wait()
            if pod.process.returncode is None:
                pod.process.kill()
            await pod.process.wait()
        for task in self._watching:
            task.cancel()
        for pod in (*self.pods, *self.gone):
            pod.log.close()

    async def _start(self) -> Pod:
        self._made += 1
        name, port = f"{self.rules.component}-{self._made}", free_port()
        log = (self.folder / f"{name}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *_here(self.rules.command, port),
            cwd=self.folder,
            env=environ_of(self.rules.environ, self.environ, source=self.source),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        return Pod(name, self.rules, port, log, process)

    async def _until_ready(self, pod: Pod) -> None:
        rules = self.rules
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pod.port}", trust_env=False) as client:
            for _ in range(rules.startup.failures):
                if await _answers(client, rules.startup.path, rules.startup.timeout_s):
                    break
                if pod.process.returncode is not None:
                    break
                await asyncio.sleep(rules.startup.period_s)
            else:
                raise RolloutFailed(f"{pod.name} did not start in time:\n{self._last_words(pod)}")
        if pod in self.gone:
            return
        if pod.process.returncode is not None:
            raise RolloutFailed(f"{pod.name} ended with {pod.process.returncode}:\n{self._last_words(pod)}")
        task = asyncio.create_task(self._watch(pod))
        self._watching.add(task)
        await pod.is_ready.wait()

    async def _watch(self, pod: Pod) -> None:
        """The kubelet's readiness probe, until the pod is gone."""
        probe, failures = self.rules.readiness, 0
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pod.port}", trust_env=False) as client:
            while pod.process.returncode is None and pod not in self.gone:
                failures = 0 if await _answers(client, probe.path, probe.timeout_s) else failures + 1
                if failures == 0:
                    self._enter(pod)
                elif failures >= probe.failures:
                    self._leave(pod)
                await asyncio.sleep(probe.period_s)

    def _enter(self, pod: Pod) -> None:
        if self.service is not None and pod not in self.gone:
            self.service.add(pod.port)
        pod.is_ready.set()

    def _leave(self, pod: Pod) -> None:
        if self.service is not None:
            self.service.remove(pod.port)

    async def _delete(self, pod: Pod) -> None:
        """Returns when the process has ended."""
        began = monotonic()
        self.gone.append(pod)
        leaving = asyncio.create_task(self._propagate(pod))
        await asyncio.sleep(self.rules.pre_stop_s)
        pod.process.terminate()
        try:
            async with asyncio.timeout(self.rules.grace_s - (monotonic() - began)):
                await pod.process.wait()
        except TimeoutError:
            pod.was_killed = True
            pod.process.kill()
            await pod.process.wait()
        pod.ended_s = monotonic() - began
        await leaving

    async def _propagate(self, pod: Pod) -> None:
        await asyncio.sleep(self.propagation_s)
        self._leave(pod)

    def _last_words(self, pod: Pod) -> str:
        return "\n".join(Path(pod.log.name).read_text(errors="replace").splitlines()[-15:])


def environ_of(*layers: Mapping[str, str], source: Path | None = None) -> dict[str, str]:
    """The environment of a pod: ours without what concerns the server, and what it is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    for layer in layers:
        kept |= layer
    if source is not None:
        kept["PYTHONPATH"] = os.pathsep.join(str(source / root) for root in ("server", "checkpoints", "graphs"))
    return kept


def _here(command: Sequence[str], port: int) -> list[str]:
    """A container's arguments as a process of this machine, on its own port of 127.0.0.1."""
    told = [sys.executable, "-m", "waystation.cli", *command[1:]]
    for flag in ("--host", "--health-host"):
        if flag in told:
            told[told.index(flag) + 1] = "127.0.0.1"
    for flag in ("--port", "--health-port"):
        if flag in told:
            told[told.index(flag) + 1] = str(port)
    return told


async def _answers(client: httpx.AsyncClient, path: str, timeout_s: float) -> bool:
    try:
        return (await client.get(path, timeout=timeout_s)).is_success
    except httpx.HTTPError:
        return False
