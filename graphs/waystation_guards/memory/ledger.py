"""A ledger in the memory of one process: for programs without a server, and for tests of what is built on ledgers."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic

from waystation_guards.calls import CallSite
from waystation_guards.ports import Account, Balance, Entry, Hold, Refusal

_KEPT = 10_000
_WEIGHT = 0.2
"""Of the newest call in a model's learned ratio: after five calls two thirds of it are from them."""


@dataclass(slots=True)
class _State:
    spent: int = 0
    held: int = 0
    at_risk: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    holds: tuple[Hold, ...]
    expires: float


@dataclass(slots=True)
class MemoryLedger:
    """`waystation_guards.ports.Ledger`. `entries` are the newest few thousand, for whoever wants to look."""

    clock: Callable[[], float] = monotonic
    entries: deque[tuple[str, CallSite, Entry]] = field(
        default_factory=lambda: deque[tuple[str, CallSite, Entry]](maxlen=_KEPT)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _accounts: dict[Account, _State] = field(default_factory=dict[Account, _State])
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open])
    _settled: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])
    _billed: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])
    _ratios: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])

    async def reserve(
        self, call: str, site: CallSite, holds: Sequence[Hold], *, ttl_s: float
    ) -> Refusal | Sequence[Balance]:
        with self._lock:
            self._expire()
            if call in self._open:
                return [self._balance(hold.account) for hold in holds]
            for hold in holds:
                state = self._state(hold.account)
                if state.spent + state.at_risk + hold.amount > hold.limit:
                    return Refusal(hold, self._balance(hold.account))
            held = _by_account(holds)
            for hold in held:
                self._set_aside(hold, 1)
            self._open[call] = _Open(held, self.clock() + ttl_s)
            return [self._balance(hold.account) for hold in holds]

    async def settle(self, call: str, site: CallSite, entry: Entry) -> Sequence[Balance]:
        with self._lock:
            if call in self._settled:
                return []
            _remember(self._settled, call)
            self._give_back(call)
            for account, amount in entry.spent.items():
                self._state(account).spent += amount
            self._learn(site.tenant, entry)
            if entry.kind == "model":
                billed, _, _ = call.partition("/")
                entry = replace(entry, cost_nano_usd=None) if billed in self._billed else entry
                _remember(self._billed, billed)
            self.entries.append((call, site, entry))
            return [self._balance(account) for account in entry.spent]

    async def release(self, call: str) -> None:
        with self._lock:
            self._give_back(call)

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        with self._lock:
            self._expire()
            return [self._balance(account) for account in accounts]

    async def now(self) -> datetime:
        return datetime.now(UTC)

    async def ratio(self, tenant: str, model: str) -> float:
        return self._ratios.get((tenant, model), 1.0)

    def _state(self, account: Account) -> _State:
        return self._accounts.setdefault(account, _State())

    def _balance(self, account: Account) -> Balance:
        state = self._accounts.get(account) or _State()
        return Balance(account, state.spent, state.held, state.at_risk)

    def _set_aside(self, hold: Hold, sign: int) -> None:
        state = self._state(hold.account)
        state.held += sign * hold.amount
        state.at_risk += sign * max(hold.amount, hold.worst)

    def _give_back(self, call: str) -> None:
        if (open_ := self._open.pop(call, None)) is not None:
            for hold in open_.holds:
                self._set_aside(hold, -1)

    def _expire(self) -> None:
        now = self.clock()
        for call in [call for call, open_ in self._open.items() if open_.expires <= now]:
            self._give_back(call)

    def _learn(self, tenant: str, entry: Entry) -> None:
        if entry.kind == "model" and entry.cost_nano_usd is not None and entry.estimate_nano_usd:
            seen = entry.cost_nano_usd / entry.estimate_nano_usd
            before = self._ratios.get((tenant, entry.model), 1.0)
            self._ratios[tenant, entry.model] = before + _WEIGHT * (seen - before)


def _by_account(holds: Sequence[Hold]) -> tuple[Hold, ...]:
    """One hold for each account: the largest of several limits on it."""
    largest: dict[Account, Hold] = {}
    for hold in holds:
        other = largest.get(hold.account, hold)
        amount, worst = max(hold.amount, other.amount), max(hold.worst, other.worst)
        largest[hold.account] = replace(hold, amount=amount, worst=worst)
    return tuple(largest.values())


def _remember(seen: OrderedDict[str, None], what: str) -> None:
    seen[what] = None
    if len(seen) > _KEPT:
        seen.popitem(last=False)
