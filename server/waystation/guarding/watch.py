"""The guards of one attempt of a run: put into its config before its graph starts, ended when it is over.

    Guards (one for a process) ── watch(run) ──▶ Watch ── configured(config) ──▶ callbacks, ports for the graph's own
                                                   └───── close() ──▶ open calls are told of, at whatever end

A run without a policy has no Watch: it is only handed the way to the ports (`Guards.lazily`), for guards that its graph
may bring along.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel

from waystation.guarding.audit_keys import RunAudit
from waystation.guarding.kill import KillSwitch, told
from waystation.guarding.whose import Whose
from waystation.telemetry import metrics
from waystation_db.pool import Database
from waystation_db.rows import ClaimedRun
from waystation_guards.calls import PORTS_KEY

if TYPE_CHECKING:  # loaded where a run is guarded: see `Guards.watch`
    from waystation.guarding.metering import Alerting, Meter
    from waystation.guarding.policy import Policy
    from waystation.guarding.ports import GuardStores
    from waystation_guards.ports import Ports
    from waystation_guards.watching.watcher import Guard, Made, ModelCall, ToolCall, Watcher

LEVEL_KEY = "waystation_level"
"""The member of a run's metadata that says at which level it began, where a policy has levels."""

AnyGraph = Pregel[Any, Any, Any, Any]


class Guards:
    """The guards of a process. Belongs to the graph loop."""

    def __init__(
        self,
        db: Database,
        *,
        redis_uri: str | None = None,
        key_prefix: str = "",
        policy: Policy | None = None,
        kills: KillSwitch | None = None,
        audit: RunAudit | None = None,
    ) -> None:
        self.policy = policy
        self.audit = audit
        self._db = db
        self._redis_uri = redis_uri
        self._key_prefix = key_prefix
        self._kills = kills
        self._loop = asyncio.get_running_loop()
        self._making = threading.RLock()
        self._stores: GuardStores | None = None
        self._tells: tuple[Meter, Alerting] | None = None

    @property
    def stores(self) -> GuardStores:
        """What the ports stand on; made when it is first asked for, by whatever thread."""
        with self._making:
            if self._stores is None:
                from waystation.guarding.ports import guard_stores

                self._stores = guard_stores(self._db, self._redis_uri, key_prefix=self._key_prefix, loop=self._loop)
            return self._stores

    def ports_for(self, tenant: str, key: str = "") -> Ports:
        """The ports of a caller."""
        ports = self._metered(self.stores.ports_for(tenant, key))
        return ports if self.audit is None else replace(ports, audit=self.audit.sink)

    def watch(self, run: ClaimedRun, *, is_over: Callable[[], bool]) -> Watch | None:
        """The guards of an attempt; None where there is nothing to guard it with. `is_over`: it is to make no more
        calls."""
        audits = self.audit is not None and self.audit.tools
        if self.policy is None and not audits:
            return None
        whose = Whose.of(run)
        return Watch(self, whose, self.ports_for(whose.tenant, whose.key), is_over, self._kills)

    def lazily(self, run: ClaimedRun, config: RunnableConfig) -> RunnableConfig:
        """The config of a run without a Watch, with the ports for guards that its graph brings along: made when
        one first asks, in whatever thread. Most graphs have none."""
        made: list[Ports] = []

        def ports() -> Ports:
            with self._making:
                if not made:
                    whose = Whose.of(run)
                    made.append(self.ports_for(whose.tenant, whose.key))
                return made[0]

        return _with_ports(config, ports)

    def _metered(self, ports: Ports) -> Ports:
        if self._tells is None:
            from waystation.catalog.keys_guards_own import AlertKeys, MetricsKeys
            from waystation.guarding.metering import Alerting, Meter

            keys = None if self.policy is None else self.policy.keys
            counted, told = (MetricsKeys(), AlertKeys()) if keys is None else (keys.metrics, keys.alerts)
            self._tells = Meter(counted), Alerting(self._db, told)
        from waystation.guarding.metering import MeteredLedger

        meter, alerting = self._tells
        return replace(ports, ledger=MeteredLedger(ports.ledger, meter), on_alert=alerting)

    async def close(self) -> None:
        """End what is under way."""
        if self._stores is not None:
            await self._stores.close()


class Hearer(Protocol):
    """What is told of calls before the guards are asked, and then what they said."""

    def agreed(self, run_id: UUID) -> None: ...

    def refused(self, run_id: UUID, error: Exception) -> None: ...


class Watch:
    """The guards of one attempt."""

    def __init__(
        self, guards: Guards, whose: Whose, ports: Ports, is_over: Callable[[], bool], kills: KillSwitch | None
    ) -> None:
        self.ports = ports
        self.level = ""
        self._policy = guards.policy
        self._whose = whose
        self.applied = None if guards.policy is None else guards.policy.of(whose)
        self._hearers: list[Hearer] = []
        self._watcher: Watcher | None = None
        audits = () if guards.audit is None else guards.audit.guards()
        if self.applied is not None or (guards.audit is not None and guards.audit.tools):
            asked = () if self.applied is None else self.applied.guards
            self._watcher = _watcher((*audits, Switch(whose, is_over, kills), *asked), self._hearers)

    @contextlib.asynccontextmanager
    async def over(self, graph: AnyGraph) -> AsyncGenerator[AnyGraph]:
        """Guard the graph that is given here, until the block is left, at whatever end."""
        if self._policy is not None:
            standing = await self._policy.level(self.ports, self._whose)
            self.level = "" if standing is None else standing.level
        try:
            if self.applied is None:
                yield graph
                return
            from waystation_guards.guarded.endings import with_endings

            with self.applied.over_calls():
                yield with_endings(graph) if self.applied.ends_runs else graph
        finally:
            await self.close()

    def heard_by(self, hearers: Sequence[Hearer]) -> None:
        """Tell these, too, what the guards say of calls."""
        self._hearers.extend(hearers)

    def configured(self, config: RunnableConfig) -> RunnableConfig:
        """The config with the ports and the callbacks. Neither is stored or streamed: LangGraph keeps callbacks out of
        checkpoints, and so it does with members of `configurable` that begin with two underscores."""
        made: dict[str, Any] = {**_with_ports(config, self.ports)}
        if self._watcher is not None:
            made["callbacks"] = self._watcher.handlers
        if self.applied is not None and self.applied.steps is not None:
            made["recursion_limit"] = min(config.get("recursion_limit", self.applied.steps), self.applied.steps)
        if self.level:
            made["metadata"] = {**config.get("metadata", {}), LEVEL_KEY: self.level}
        return cast("RunnableConfig", made)

    async def close(self) -> None:
        """End the calls that nobody told the end of. What was held for them is settled or given back."""
        if self._watcher is not None:
            await self._watcher.close()


class Switch:
    """The guard that is asked first: nobody calls a model or a tool for a run that is over, or stopped by the kill
    switch."""

    def __init__(self, whose: Whose, is_over: Callable[[], bool], kills: KillSwitch | None) -> None:
        self._whose = whose
        self._is_over = is_over
        self._kills = kills

    async def before_model(self, call: ModelCall) -> None:
        """Raises Killed: the run is over, or stopped."""
        self._check()

    async def after_model(self, call: ModelCall, made: Made) -> None: ...

    async def before_tool(self, call: ToolCall) -> None:
        """Raises as `before_model`."""
        self._check()

    async def after_tool(self, call: ToolCall, made: Made) -> None: ...

    def _check(self) -> None:
        from waystation_guards.errors import Killed

        whose = self._whose
        if self._kills is not None and self._kills.in_force:
            kill = self._kills.find(
                whose.tenant, graph=whose.graph, assistant=whose.assistant, user=whose.user, key=whose.key
            )
            if kill is not None:
                raise Killed(told(kill), retry_after_s=kill.left_s)
        if self._is_over():
            raise Killed("The run is over")


def _with_ports(config: RunnableConfig, ports: Ports | Callable[[], Ports]) -> RunnableConfig:
    return {**config, "configurable": {**config.get("configurable", {}), PORTS_KEY: ports}}


def refusal_of(error: BaseException) -> Mapping[str, Any]:
    """What a guard's refusal says to machines: its `code`, and `retry_after` in seconds where that is known. Empty for
    all other errors."""
    known = sys.modules.get("waystation_guards.errors")
    if known is None or not isinstance(error, known.GuardError):
        return {}
    later: float | None = cast("Any", error).retry_after_s
    return {"code": cast("Any", error).code} | ({} if later is None else {"retry_after": round(later, 3)})


def _watcher(guards: tuple[Guard, ...], hearers: Sequence[Hearer]) -> Watcher:
    from waystation_guards.errors import GuardError
    from waystation_guards.watching.watcher import Watcher

    class RunWatcher(Watcher):
        """Counts refusals, and tells who hears of calls of verdicts."""

        async def before(self, run_id: UUID, call: ModelCall | ToolCall) -> None:
            try:
                await super().before(run_id, call)
            except GuardError as error:
                metrics.GUARD_REFUSALS.labels(error.code).inc()
                for hearer in hearers:
                    hearer.refused(run_id, error)
                raise
            for hearer in hearers:
                hearer.agreed(run_id)

    return RunWatcher(guards, loop=asyncio.get_running_loop())
