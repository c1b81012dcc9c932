"""Rate limits of models: requests, tokens and open calls per target, kept by all processes together.

    limiter = RateLimit(ModelRate(target="openai/gpt-4o*", requests=500, tokens=200_000), wait_s=30)
    await graph.ainvoke(input, watched(config, [limiter]))

    before a call   its turn in this process ─▶ one atomic draw from all buckets, on credit if need be ─▶ wait
                    ─▶ a place among the open calls; RateLimited where that would take longer than `wait_s`
    after it        what was drawn beyond its use goes back, what was used beyond is drawn; what the provider reports of
                    its own limits lowers ours, and its `Retry-After` pauses the target for everybody

The next in line has drawn already: whoever asks later, in whichever process, comes after it. So large calls are not
passed by small ones for ever. What calls give back is there for all who have not drawn yet.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal, TypeVar

from waystation_guards.budget.estimates import counted_usage, input_tokens
from waystation_guards.calls import current_config
from waystation_guards.deadlines import deadline_of, left_s
from waystation_guards.errors import GuardError, GuardUnavailable, RateLimited
from waystation_guards.ports import Drawn, State
from waystation_guards.rates.hearing import Hearing
from waystation_guards.rates.heeding import heed
from waystation_guards.rates.places import Places
from waystation_guards.rates.rules import Asked, ModelRate, Per, Place, amounts, draws_of, owner_of, pause_of, places_of
from waystation_guards.rates.rules import target_of as target_of
from waystation_guards.rates.turns import TurnMissed, Turns
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

log = logging.getLogger(__name__)

EXPECTED_OUTPUT: Final = 500
"""Tokens of an answer before any are known of its target: a long paragraph."""

_LEARNED: Final = 0.2
"""Weight of the newest answer in what is expected of a target."""
_PLACE_POLL_S: Final = (0.01, 0.05)
_MANY: Final = 1000

M = TypeVar("M")


@dataclass(slots=True)
class Taken:
    """What an open call has taken."""

    target: str
    draws: tuple[Asked, ...]
    input_tokens: int
    wait_s: float
    """How long the call may wait."""
    drawn: Drawn = field(default_factory=lambda: Drawn(False, 0.0))
    places: list[Place] = field(default_factory=list[Place])


@dataclass(slots=True)
class _Target:
    """What this process knows of a target."""

    output_tokens: float = EXPECTED_OUTPUT
    refusals: int = 0
    """In a row."""


class RateLimit:
    """A guard (`watching.Guard`). One object serves any number of runs, loops and threads."""

    def __init__(
        self,
        *rates: ModelRate,
        wait_s: float = 60.0,
        fail: Literal["open", "closed"] = "open",
        adapt: bool = True,
        lines: Per = "tenant",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`wait_s`: how long a call may wait for its turn. `fail`: what becomes of calls while the shared state is
        away. `adapt`: heed what providers report. `lines`: who waits in one line; the first of each line take turns.
        `sleep` and `clock` are for tests."""
        if fail not in ("open", "closed"):
            raise ValueError(f"fail of a rate limit is {fail!r}; expected is open or closed")
        if not wait_s >= 0:
            raise ValueError(f"wait_s of a rate limit is {wait_s!r}; expected is a number that is not below zero")
        self.rates = rates
        self._wait_s = wait_s
        self._fails_open = fail == "open"
        self._adapts = adapt
        self._lines: Per = lines
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes = dict[tuple[str, ...], Turns]()
        self._targets = dict[str, _Target]()
        self._places = Places()
        self._hearing = Hearing()

    def attend(self, model: M) -> M:
        """Hear what the provider of a model reports in its headers also where LangChain does not pass them on, as with
        `ChatAnthropic`. Returns the model."""
        if not self._hearing.attend(model):
            log.warning("no HTTP client was found in a model; what its provider reports is not heard")
        return model

    async def before_model(self, call: ModelCall) -> None:
        """Wait until the call fits.

        Raises:
            RateLimited: that would take longer than `wait_s`, or until after the deadline; see its `retry_after_s`.
            GuardUnavailable: the shared state is away, and the limit fails closed.
        """
        target = target_of(call)
        prompt = input_tokens(call.messages, call.params)
        output = round(self._target(target).output_tokens)
        output = min(output, call.max_tokens or output)
        draws = tuple(draws_of(self.rates, target, call.site, input_tokens=prompt, output_tokens=output))
        places = tuple(places_of(self.rates, target, call.site))
        if not (draws or places or self._adapts):
            return
        left = left_s(deadline_of(current_config()))
        wait_s = self._wait_s if left is None else min(self._wait_s, left)
        taken = Taken(target, draws, prompt, wait_s)
        try:
            await self._take(call, taken, places)
        except GuardError:
            raise
        except Exception as error:
            if not self._fails_open:
                raise GuardUnavailable("the shared state of the rate limits does not answer") from error
            log.warning("the shared state of the rate limits does not answer; the call goes on", exc_info=error)
            taken.draws = ()
        call.held[id(self)] = taken

    async def after_model(self, call: ModelCall, made: Made) -> None:
        """Give back what was not used, and heed what the provider reported."""
        taken: Taken | None = call.held.pop(id(self), None)
        if taken is None:
            return
        state = call.ports.state
        if made == "not made":
            await _quietly(self._return(call, taken))
            return
        await _quietly(self._leave(call, taken))
        await _quietly(self._correct(call, taken, made))
        if self._adapts:
            known = self._target(taken.target)
            heard = self._hearing.take(call.model)
            await _quietly(heed(state, call, taken.target, _seen(taken), heard=heard, refusals=known.refusals))
            known.refusals = known.refusals + 1 if made == "failed" else 0

    async def before_tool(self, call: ToolCall) -> None:
        """Tools are not limited."""

    async def after_tool(self, call: ToolCall, made: Made) -> None:
        """Nothing was taken for it."""

    async def _take(self, call: ModelCall, taken: Taken, places: Sequence[Place]) -> None:
        deadline = self._clock() + taken.wait_s
        lane = self._lane(call, taken, places)
        if lane.is_free:  # nobody waits here: what is there may be had at once, by many at a time
            await self._draw(call.ports.state, taken, 0.0)
            if taken.drawn.taken and await self._enter_at_once(call, taken, places):
                return
            if taken.drawn.wait_s > taken.wait_s:
                raise _limited(taken.target, taken.drawn.wait_s)
        await self._stand_in_line(call, taken, places, lane, deadline)

    async def _stand_in_line(
        self, call: ModelCall, taken: Taken, places: Sequence[Place], lane: Turns, deadline: float
    ) -> None:
        costs = [asked.draw.cost for asked in taken.draws]
        try:
            if (wait_s := self._foreseen(lane, taken)) > taken.wait_s:
                raise _limited(taken.target, wait_s)
            async with lane.turn(costs, timeout_s=max(0.0, deadline - self._clock())):
                if not taken.drawn.taken:
                    await self._draw(call.ports.state, taken, deadline - self._clock())
                    if not taken.drawn.taken:
                        raise _limited(taken.target, taken.drawn.wait_s)
                await self._go(call, taken, places, lane, deadline)
        except TurnMissed:
            await _quietly(self._return(call, taken))
            raise _limited(taken.target, self._foreseen(lane, taken)) from None
        except BaseException:
            await _quietly(self._return(call, taken))
            raise

    async def _draw(self, state: State, taken: Taken, patience_s: float) -> None:
        """Draw from all buckets, unless the target is paused for longer. Cancelled, it leaves nothing taken."""
        draws = [*(asked.draw for asked in taken.draws), pause_of(taken.target)]
        drawing = asyncio.ensure_future(state.draw(draws, patience_s=max(0.0, patience_s)))
        try:
            taken.drawn = await asyncio.shield(drawing)
        except asyncio.CancelledError:
            if (await drawing).taken:
                await _quietly(_give_back(state, taken.draws, [asked.draw.cost for asked in taken.draws]))
            raise

    async def _go(self, call: ModelCall, taken: Taken, places: Sequence[Place], lane: Turns, deadline: float) -> None:
        """Wait until what was drawn is there, and for places among the open calls."""
        state, wait_s = call.ports.state, taken.drawn.wait_s
        while wait_s > 0:
            lane.expect(self._clock() + wait_s)
            await self._sleep(wait_s)
            wait_s = (await state.draw([pause_of(taken.target)])).wait_s  # it may have been paused meanwhile
            if wait_s > deadline - self._clock():
                raise _limited(taken.target, wait_s)
        for place in places:
            await self._enter(call, taken, place, deadline)

    async def _enter_at_once(self, call: ModelCall, taken: Taken, places: Sequence[Place]) -> bool:
        """Whether all places are free. Some may be taken already where one is not; they stay so."""
        try:
            for place in places:
                taken.places.append(place)  # before it is entered: left again whatever happens on the way
                if not await self._places.enter(call.ports.state, place.name, limit=place.limit, holder=call.id):
                    return False
        except BaseException:
            await _quietly(self._return(call, taken))
            raise
        return True

    async def _enter(self, call: ModelCall, taken: Taken, place: Place, deadline: float) -> None:
        poll_s, longest_s = _PLACE_POLL_S
        if place not in taken.places:
            taken.places.append(place)
        while not await self._places.enter(call.ports.state, place.name, limit=place.limit, holder=call.id):
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise _limited(taken.target, 1.0, what=f"{place.limit} calls at a time")
            await self._sleep(min(poll_s, left_s))
            poll_s = min(poll_s * 1.5, longest_s)

    async def _return(self, call: ModelCall, taken: Taken) -> None:
        """Everything back: the call is not made."""
        await self._leave(call, taken)
        if taken.drawn.taken:
            taken.drawn = Drawn(False, 0.0)
            await _give_back(call.ports.state, taken.draws, [asked.draw.cost for asked in taken.draws])

    async def _leave(self, call: ModelCall, taken: Taken) -> None:
        for place in taken.places:
            await self._places.leave(call.ports.state, place.name, holder=call.id)

    async def _correct(self, call: ModelCall, taken: Taken, made: Made) -> None:
        """What was drawn beyond what was used goes back. A call that failed at once was a request without tokens."""
        if made == "failed" and not call.streamed_chunks and call.usage is None:
            used = amounts(0, 0)
        else:
            chars = max(call.streamed_chars, call.answered_chars)
            usage = call.usage or counted_usage(taken.input_tokens, chunks=call.streamed_chunks, chars=chars)
            used = amounts(int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0))
            if made == "made":
                known = self._target(taken.target)
                known.output_tokens += _LEARNED * (used["output_tokens"] - known.output_tokens)
        unused = [asked.draw.cost - used[asked.kind] for asked in taken.draws]
        await _give_back(call.ports.state, taken.draws, unused)

    def _foreseen(self, lane: Turns, taken: Taken) -> float:
        """Seconds until this call's turn at the earliest, by those who wait before it in this process: when the last of
        them goes, nothing is left."""
        if lane.is_free:
            return 0.0
        ahead = lane.ahead() or [0] * len(taken.draws)
        waits = [
            (cost + asked.draw.cost) * asked.draw.rate.seconds / asked.draw.rate.amount
            for cost, asked in zip(ahead, taken.draws, strict=False)
        ]
        return max([0.0, *waits]) + max(0.0, lane.due - self._clock())

    def _lane(self, call: ModelCall, taken: Taken, places: Sequence[Place]) -> Turns:
        line = f"{call.site.tenant}/{owner_of(call.site, self._lines)}" if self._lines != "target" else ""
        names = (line, taken.target, *(asked.draw.name for asked in taken.draws), *(place.name for place in places))
        with self._lock:
            if len(self._lanes) > _MANY:
                self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.is_free}
            return self._lanes.setdefault(names, Turns())

    def _target(self, target: str) -> _Target:
        with self._lock:
            if len(self._targets) > _MANY:
                self._targets.clear()
            return self._targets.setdefault(target, _Target())


def _seen(taken: Taken) -> list[tuple[Asked, int]]:
    """Each draw, and what it left."""
    return list(zip(taken.draws, taken.drawn.left, strict=False))


async def _give_back(state: State, draws: Sequence[Asked], unused: Sequence[int]) -> None:
    for asked, cost in zip(draws, unused, strict=True):
        if cost:
            await state.give_back(asked.draw.name, [asked.draw.rate], cost)


async def _quietly(work: Awaitable[Any]) -> None:
    """A call that was made stays made, also when the shared state is away by then."""
    try:
        await work
    except Exception as error:
        log.warning("the shared state of the rate limits does not answer", exc_info=error)


def _limited(target: str, wait_s: float, *, what: str = "its rate") -> RateLimited:
    return RateLimited(
        f"{target or 'the model'} is at its limit of {what}: try again in {max(1, round(wait_s))} s",
        retry_after_s=wait_s,
    )
