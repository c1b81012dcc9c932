"""What guards need from outside, in three ports. In one process memory does; a server hands in Postgres and Redis.

    Ledger   amounts that must not be exceeded: reserve over several accounts at once, settle, release
    State    what all processes have to agree on from moment to moment: rates, breakers, levels, switches
    Cache    what may be forgotten

    ports_of(config) ─▶ the server's, bound to the caller's tenant ─▶ else those of this process (`use_ports`)

Amounts are integers: billionths of a US dollar (nano-dollars), tokens, calls, milliseconds. A price of 0.15 $ per
million tokens is 150 nano-dollars per token, so rounding loses less than a nano-dollar per call.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from langchain_core.runnables import RunnableConfig

from waystation_guards.audit.audit import AuditSink
from waystation_guards.calls import CallSite, handed_in

SHARED: Final = "shared:"
"""Names of limiters, breakers and values, and keys of caches, that begin so are the same for a server's tenants."""

Unit = Literal["usd", "tokens", "model_calls", "tool_calls", "seconds"]


class PortUnavailable(Exception):
    """What a port keeps its state in is away or does not answer in time. A guard decides by its fail mode."""


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """What is counted together: a scope's owner, in one unit, in one window.

    `scope` and `owner`: ("run", its id), ("thread", …), ("assistant", …), ("user", …), ("key", …), ("tenant", …).
    `window`: the window's name and start in UTC, such as `day:2026-11-21T23:00Z`; empty where the budget has no window.
    """

    tenant: str
    scope: str
    owner: str
    unit: Unit
    window: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """An amount to set aside on an account: what a call is expected to cost, and what it may cost at worst.

    It fits while what is spent, what all open calls may cost at worst, and this call's expected amount stay within the
    limit together. So however many calls run in parallel, the limit is passed by at most the difference between one
    call's worst and expected amount.
    """

    account: Account
    amount: int
    limit: int
    worst: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's state. What is held is given back when its call is over or its attempt is dead.

    `held`: what open calls are expected to cost. `at_risk`: what they may cost at worst.
    """

    account: Account
    spent: int
    held: int
    at_risk: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was set aside: the first hold, in the order given, that does not fit."""

    hold: Hold
    balance: Balance

    @property
    def may_fit_later(self) -> bool:
        """Whether it is only open calls that stand in the way: once they are settled there may be room."""
        return self.balance.spent + self.hold.amount <= self.hold.limit


@dataclass(frozen=True, slots=True)
class Entry:
    """What a call came to: one row of the ledger, never changed afterwards; corrections are entries of their own.

    `spent`: what to add to each account that was held, or to others. `usage`: LangChain's usage metadata.
    `estimate_nano_usd`: what the call was expected to cost, from which `Ledger.ratio` learns. A `cache_hit` and a
    `saving` (of a shorter context, a smaller model) cost nothing; what they saved is in `detail`.
    """

    kind: Literal["model", "tool", "cache_hit", "saving", "correction"]
    model: str = ""
    cost_nano_usd: int | None = None
    estimate_nano_usd: int | None = None
    price_version: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    spent: Mapping[Account, int] = field(default_factory=dict[Account, int])
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Ledger(Protocol):
    """Amounts that must not be exceeded, however many calls run in parallel in however many processes."""

    async def reserve(
        self, call: str, site: CallSite, holds: Sequence[Hold], *, ttl_s: float
    ) -> Refusal | Sequence[Balance]:
        """Set aside all holds or none, in one atomic step. The balances include the holds.

        `call` is `<id of the call>/<name of the budget>`; asked again for one that is open, nothing is set aside twice.
        Holds are given back after `ttl_s` at the latest, and at once when the site's attempt is known to be over.
        A server's ledger counts what was expected of calls that were lost so, until they come back or are corrected;
        it raises Killed for an attempt that is over already.
        """
        ...

    async def settle(self, call: str, site: CallSite, entry: Entry) -> Sequence[Balance]:
        """Give back the call's holds and write what it came to, in one atomic step. A second time does nothing.

        The balances are after the entry; there are none where the call had been settled before. So an entry under an
        id that several processes agree on is also a claim: one of them gets balances.
        Several budgets may settle the same call. What it cost is written with the first of them: the ledger's sum is
        what the providers bill.
        """
        ...

    async def release(self, call: str) -> None:
        """Give back the call's holds: it was not made, or cost nothing."""
        ...

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """What is spent and held; zero for an account that nobody has used."""
        ...

    async def now(self) -> datetime:
        """The ledger's clock, by which windows begin and end; in UTC."""
        ...

    async def ratio(self, tenant: str, model: str) -> float:
        """Actual to estimated cost of a model's calls as learned, 1.0 before there is enough to learn from."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` per `seconds`, refilled evenly: a bucket that holds at most the amount."""

    amount: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of one bucket. A bucket is a name and a rate, as for `State.take`."""

    name: str
    rate: Rate
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """Whether it was taken. `wait_s`: seconds until what was taken is there; if nothing was, until it may fit.

    `left`: what is in each bucket now, in the order of the draws, rounded down; below zero for a debt.
    """

    taken: bool
    wait_s: float
    left: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long.

    It opens when of the calls of the last `window_s` at least `minimum` were made and `failure_rate` of them failed.
    """

    failure_rate: float = 0.5
    minimum: int = 10
    window_s: float = 60.0
    cooldown_s: float = 30.0
    probe_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a target may be called. `is_probe`: the one call of a half-open breaker, whose outcome decides."""

    allowed: bool
    is_probe: bool = False
    retry_after_s: float = 0.0


class State(Protocol):
    """What processes agree on from moment to moment. Every method is one atomic step on one clock."""

    async def take(self, name: str, rates: Sequence[Rate], cost: int = 1) -> float:
        """Take `cost` from all rates of a limiter, or nothing. 0.0 when taken, else the seconds until it may fit."""
        ...

    async def draw(self, draws: Sequence[Draw], *, patience_s: float = 0.0) -> Drawn:
        """Take from several buckets, of each its own cost, or nothing. Pauses of all their names count.

        What is not there yet is taken on credit, if it will be there within `patience_s`: the caller goes on after
        `wait_s`, and whoever asks later comes after it. So those who wait are served in the order in which they asked,
        large ones too, in however many processes. Who leaves before its turn gives back.

        In a store that is spread over machines the names need a common `{tag}`. No two draws are of the same bucket.
        """
        ...

    async def give_back(self, name: str, rates: Sequence[Rate], cost: int) -> None:
        """Return what was taken and not used; a negative cost takes what was used beyond."""
        ...

    async def pause(self, name: str, seconds: float) -> None:
        """Let nothing be taken for so long, as a provider's `Retry-After` asks. Only ever extends a pause."""
        ...

    async def enter(self, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
        """Take one of `limit` places, held until `leave` or for `ttl_s`; asking again as the same holder renews it."""
        ...

    async def leave(self, name: str, *, holder: str) -> None:
        """Give the place back."""
        ...

    async def admit(self, target: str, rules: BreakerRules) -> Admission:
        """Whether a target may be called now. Of a half-open breaker exactly one caller gets the probe."""
        ...

    async def report(
        self, target: str, rules: BreakerRules, *, ok: bool, is_probe: bool = False, retry_after_s: float = 0.0
    ) -> bool:
        """Count a call's outcome. True if the breaker opened or closed by it.

        Only the probe closes an open breaker. Calls that began before it opened may still prolong its cool-down, never
        shorten it.
        """
        ...

    async def read(self, name: str) -> str | None:
        """A shared value: a level, a switch."""
        ...

    async def write(self, name: str, value: str | None, *, ttl_s: float | None = None) -> None:
        """Set or remove a shared value."""
        ...


class Cache(Protocol):
    """What may be forgotten at any time."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None: ...

    async def lock(self, key: str, *, holder: str, ttl_s: float) -> bool:
        """Become the one who computes a missing value. False while another is."""
        ...

    async def unlock(self, key: str, *, holder: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The three ports, and whose they are where a server hands them in.

    `loop`: the loop that they live on, for code that blocks in threads; None where any loop will do. `audit`: where
    guards tell what they did (`audit.audit`); None tells nobody. `on_alert`: told of each alert (`budget_alerts.Alert`)
    of any budget that uses these ports, besides the budget's own.
    """

    ledger: Ledger
    state: State
    cache: Cache
    tenant: str = ""
    key: str = ""
    loop: AbstractEventLoop | None = None
    on_alert: Callable[[Any], Awaitable[None] | None] | None = None
    audit: AuditSink | None = None


_of_process: list[Ports] = []


def use_ports(ports: Ports) -> None:
    """The ports of this process's programs, where no server hands in others."""
    _of_process[:] = [ports]


def ports_of(config: RunnableConfig | None) -> Ports:
    """The ports for a call: the server's, else those of `use_ports`, else this process's memory."""
    server = handed_in((config or {}).get("configurable") or {})
    if isinstance(server, Ports):
        return server
    if not _of_process:
        from waystation_guards.memory.ports import memory_ports  # those who never use it need not load it

        use_ports(memory_ports())
    return _of_process[0]
