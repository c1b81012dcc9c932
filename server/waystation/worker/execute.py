"""Executes one attempt of a run: claimed row in, outcome out. What became of it is written down elsewhere.

start ──▶ graph streams ──▶ wire ──▶ publisher ──▶ event log
              ▲
stop(reason) ─┘   the reason is set first, then the task is cancelled; a node that swallows the cancellation is left
                  behind the fence after `abandon_s`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained, UnknownInterruptError
from langgraph.runtime import RunControl
from langgraph.types import Interrupt
from structlog.contextvars import bound_contextvars

from waystation.events import EventLog
from waystation.guarding.kill import told
from waystation.guarding.watch import Watch, refusal_of
from waystation.runs.requests import STRICT_RESUME, is_native
from waystation.services import GraphSide
from waystation.services.loopback import act_for
from waystation.telemetry import metrics
from waystation.telemetry.tracing import AttemptSpan, CallHearer
from waystation.worker.call_counts import CallCounts
from waystation.worker.native import NativeWire
from waystation.worker.numbers import numbers_before
from waystation.worker.outcomes import Failed, HandedOver, Lost, Outcome, Stopped, Succeeded
from waystation.worker.publisher import Publisher
from waystation.worker.reasons import Cancelled, Draining, FencedOff, StopReason, TimedOut
from waystation.worker.resume_point import AnyGraph, resume_point
from waystation.worker.run_config import graph_config, graph_context, graph_input
from waystation.worker.traced import origin_ids, traced
from waystation.worker.wire import Wire, error_event, metadata_event
from waystation_db.checkpointer import PostgresCheckpointer
from waystation_db.cipher import Cipher
from waystation_db.errors import DatabaseUnavailable, Fenced, Undecipherable
from waystation_db.json import dumps
from waystation_db.rows import ClaimedRun
from waystation_db.run_sealing import opened_claim

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an attempt may take, and how long a cancelled node may go on; in seconds."""

    timeout_s: float
    abandon_s: float


class Execution:
    """One attempt. `run()` is awaited once; `stop` and `drain` may be called at any time, on the graph loop."""

    def __init__(
        self,
        run: ClaimedRun,
        side: GraphSide,
        events: EventLog,
        limits: Limits,
        *,
        abandon: Callable[[asyncio.Task[Outcome]], None],
    ) -> None:
        self.claimed = run
        self.publisher = Publisher(events, run)
        self.span: AttemptSpan | None = None
        self.is_over = False
        """The graph has ended; what became of it is being written down."""
        self._side = side
        self._limits = limits
        self._abandon = abandon
        self._control = RunControl()
        self._reason: StopReason | None = None
        self._stopping = asyncio.Event()
        self._was_refused = False
        self._wire: Wire | NativeWire | None = None
        self._before: int | None = None
        self._began = False
        self._is_abandoned = False
        self._watch: Watch | None = None
        self._saver: PostgresCheckpointer | None = None
        self._made_at = monotonic()

    def stop(self, reason: StopReason) -> None:
        """Stop as soon as possible. A later reason replaces an earlier one only if it is a lost lease."""
        if self._reason is None or isinstance(reason, FencedOff):
            self._reason = reason
            # A node that swallows the cancellation comes to its end some day: no other step may follow then.
            self._control.request_drain()
            self._stopping.set()

    def drain(self) -> None:
        """Hand over at the next superstep."""
        self._control.request_drain()

    @property
    def asked(self) -> list[Interrupt[Any]]:
        """What the graph asked when it stopped."""
        return [] if self._wire is None else self._wire.interrupts

    @property
    def supersteps(self) -> int:
        """How many the attempt has made, as far as it is known."""
        return 0 if self._saver is None else self._saver.supersteps

    async def numbers(self) -> int:
        """How many numbers of the thread's events the run has taken so far, all of its attempts together."""
        match self._wire:
            case NativeWire() as wire:
                return wire.numbers
            case Wire() as wire:
                shown = wire.shown
            case None:
                shown = 0
        return await self._numbers_before() + int(self._began) + shown

    async def _numbers_before(self) -> int:
        if self._before is None:
            self._before = await numbers_before(self.claimed, db=self._side.db)
        return self._before

    async def run(self) -> Outcome:
        """Execute to an outcome. Does not raise, except when it is itself cancelled."""
        unreadable = None if self._side.db.cipher is None else await self._open_claim(self._side.db.cipher)
        tracing = self._side.tracing
        with bound_contextvars(**origin_ids(self.claimed)):
            if tracing is None:
                return await self._attempt(unreadable)
            return await traced(tracing, self, lambda: self._attempt(unreadable))

    async def _attempt(self, unreadable: Failed | None) -> Outcome:
        if self.claimed.cancel_action is not None:
            return Stopped(Cancelled(self.claimed.cancel_action, self.claimed.cancel_reason))
        if unreadable is not None:
            return unreadable
        if self._side.kills is not None and (kill := self._side.kills.of_run(self.claimed)) is not None:
            return Stopped(Cancelled("interrupt", told(kill)))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._limits.timeout_s, self.stop, TimedOut(self._limits.timeout_s))
        body = loop.create_task(self._body(), name=f"run {self.claimed.key.run_id}")
        waiter = loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait({body, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if not body.done():
                body.cancel()
                await asyncio.wait({body}, timeout=self._limits.abandon_s)
            return self._outcome_of(body)
        finally:
            timer.cancel()
            waiter.cancel()
            if not body.done():
                body.cancel()

    async def _open_claim(self, cipher: Cipher) -> Failed | None:
        """Decrypt what the run was asked for. What it stores from here on is encrypted in the same context."""
        try:
            cipher.adopt(self.claimed.kwargs)
            self.claimed = await opened_claim(cipher, self.claimed)
        except Undecipherable as error:
            log.warning("the run cannot be decrypted", error=str(error))
            return Failed(type(error).__name__, str(error))
        return None

    def _outcome_of(self, body: asyncio.Task[Outcome]) -> Outcome:
        """The body's own outcome, unless it was stopped: then the reason says what that means."""
        outcome: Outcome | None = None
        if not body.done():
            metrics.NODES_ABANDONED.inc()
            log.warning("a cancelled node goes on; it is left behind the fence", reason=str(self._reason))
            self._is_abandoned = True
            self._abandon(body)
        elif not body.cancelled():
            outcome = body.result()
        match self._reason:
            case FencedOff():
                return Lost()
            case Cancelled() as reason:
                return Lost() if isinstance(outcome, Lost) else Stopped(reason)
            case TimedOut() as reason:
                return outcome if isinstance(outcome, Succeeded | Lost) else Stopped(reason)
            case Draining():
                return outcome if isinstance(outcome, Succeeded | Lost) else HandedOver()
            case None:
                return outcome or Failed("CancelledError", "a node of the graph cancelled its own run")

    async def _body(self) -> Outcome:
        run = self.claimed
        config: dict[str, Any] = run.kwargs.get("config") or {}
        act_for(run.key, config.get("configurable") or {})
        try:
            return await self._stream()
        except asyncio.CancelledError:
            raise
        except GraphDrained:
            return HandedOver()
        except Fenced:
            self._count_refusal()
            return Lost()
        except DatabaseUnavailable as e:
            # An outage of Postgres that outlasts the retries ends no run: it goes back to the queue.
            log.warning("Postgres is away; the run is handed back", error=str(e))
            return HandedOver()
        except BaseException as e:  # a node may raise anything, SystemExit included: it ends its own run and no more
            refusal = refusal_of(e)  # a guard's refusal is told in full by its message
            log.info("run failed", error=type(e).__name__, exc_info=not refusal)
            return Failed(type(e).__name__, _text_of(e), refusal, rejected=self._rejects(e))

    def _rejects(self, error: BaseException) -> bool:
        """Whether it says that the run answered an interrupt that does not wait, where it asked to be told."""
        return isinstance(error, UnknownInterruptError) and bool(self.claimed.kwargs.get(STRICT_RESUME))

    def _count_refusal(self) -> None:
        if not self._was_refused:
            self._was_refused = True
            metrics.FENCED_WRITES.inc()

    async def _stream(self) -> Outcome:
        run = self.claimed
        await self._begin()
        config = graph_config(run, saver=self._side.saver.for_run(run.key, run.attempt))
        context = graph_context(run)
        async with self._side.catalog.open(
            run.graph_id, access="threads.create_run", config=config, tenant_id=run.key.tenant_id, context=context
        ) as graph:
            self._side.saver.allow_types_of(graph)
            self._watch = self._side.guards and self._side.guards.watch(run, is_over=self._stopping.is_set)
            if self._watch is None:
                outcome = await self._stream_graph(graph)
            else:
                async with self._watch.over(graph) as guarded:
                    outcome = await self._stream_graph(guarded)
        await self.publisher.flush()
        return outcome

    async def _begin(self) -> None:
        run = self.claimed
        if is_native(run.kwargs):
            self._wire = wire = NativeWire(run, before=await self._numbers_before())
            self.publisher.emit(wire.began())
        else:
            self.publisher.emit([metadata_event(run.key.run_id, run.attempt)])
            self._began = True

    async def _stream_graph(self, graph: AnyGraph) -> Outcome:
        run = self.claimed
        durability = run.kwargs.get("durability") or "async"
        if run.crashes and durability == "async":
            durability = "sync"  # so that the next crash tells at which step: what kills processes is tried three times
        saver = self._side.saver.for_run(
            run.key, run.attempt, begins_thread=run.begins_thread, in_background=durability == "async"
        )
        self._saver = saver
        begin = await resume_point(run, graph, graph_config(run, saver=saver, at_head=True), db=self._side.db)
        if begin.kind == "paused":
            if isinstance(self._wire, NativeWire) and begin.snapshot is not None:
                self.publisher.emit(self._wire.asks_again(begin.snapshot.interrupts))
            return Succeeded(None, paused=True)
        fresh = begin.kind == "start"
        wire = self._wire
        if wire is None:
            wire = self._wire = Wire(run.kwargs["stream_mode"], subgraphs=bool(run.kwargs.get("subgraphs")))
        hearers: list[CallHearer] = [CallCounts()]
        if self.span is not None:
            hearers.append(self.span.hearer())
        stream = wire.stream(
            graph,
            graph_input(run) if fresh else None,
            config=self._with_callbacks(graph_config(run, saver=saver, at_head=not fresh), hearers),
            context=graph_context(run),
            interrupt_before=run.kwargs.get("interrupt_before"),
            interrupt_after=run.kwargs.get("interrupt_after"),
            durability=durability,
            control=self._control,
        )
        is_first = True
        try:
            async for events in stream:
                if is_first:
                    is_first = False
                    metrics.RUN_FIRST_EVENT_SECONDS.observe(monotonic() - self._made_at)
                if self._is_abandoned:
                    break  # the run's end has its number already
                self.publisher.emit(events)
                await self.publisher.room()
        finally:
            for hearer in hearers:
                hearer.close()
            # However it ended, what it has put is committed before anybody looks at the thread's state.
            await saver.at_rest()
            if saver.is_fenced_off:
                self._count_refusal()
        await saver.settled()
        return Succeeded(wire.output(), paused=wire.paused)

    def _with_callbacks(self, config: RunnableConfig, hearers: Sequence[CallHearer]) -> RunnableConfig:
        """The config with what hears of calls. The guards come last, who may refuse them: LangChain leaves what stands
        behind a refusal unawaited."""
        if self._watch is None:
            config = config if self._side.guards is None else self._side.guards.lazily(self.claimed, config)
            return {**config, "callbacks": cast("list[Any]", hearers)}
        self._watch.heard_by(hearers)
        made = self._watch.configured(config)
        return {**made, "callbacks": [*cast("list[Any]", hearers), *cast("list[Any]", made.get("callbacks") or [])]}


def failure_event(error: dict[str, Any]) -> tuple[str, bytes, str]:
    """The `error` event that closes a failed run's stream."""
    return error_event(dumps(error))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's class says what its text is, and may be wrong
        return ""
