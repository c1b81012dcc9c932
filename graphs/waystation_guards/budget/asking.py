"""Asks a human for more when a limit is reached: LangGraph's interrupt out of the call, the grant as a ledger entry.

    refused ─▶ interrupt({"type": "waystation.budget", ...}) ─▶ Command(resume={"grant": 5}) ─▶ entry, the call is made
                                                             └▶ anything else: refused for good

The node runs again from its beginning when it is resumed. So that interrupts of its own keep their places, a call that
asked asks again, and gets the answer that the checkpoint keeps: which calls asked is kept in the shared state.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, cast

from langgraph.types import interrupt

from waystation_guards.budget.accounts import account_of
from waystation_guards.budget.limits import Limit
from waystation_guards.calls import current_config
from waystation_guards.ports import Entry, Ports
from waystation_guards.watching.calls import ModelCall, ToolCall

ASK_TYPE: Final = "waystation.budget"

_SCRATCHPAD: Final = "__pregel_scratchpad"
_CHECKPOINTER: Final = "__pregel_checkpointer"
_KEPT_S: Final = 90 * 86400.0
"""How long a human may take. After that a node with interrupts of its own may mistake the answer for one of them."""
_MOST: Final = 1e12
_TASKS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a human said. `amount` is in the limit's unit; 0 where nothing was granted, and `why` it was not."""

    amount: float
    why: str = ""


class Asking:
    """The questions of a budget."""

    def __init__(self, budget: str) -> None:
        self._budget = budget
        self._tasks: OrderedDict[int, tuple[Any, int]] = OrderedDict()

    def place(self, call: ModelCall | ToolCall) -> str | None:
        """The call's place in its task, the same when the task runs again; None where nobody can be asked."""
        config: Mapping[str, Any] = current_config() or {}
        configurable = cast("Mapping[str, Any]", config.get("configurable") or {})
        scratchpad = configurable.get(_SCRATCHPAD)
        if scratchpad is None or not configurable.get(_CHECKPOINTER):
            return None
        _, number = self._tasks.pop(id(scratchpad), (scratchpad, 0))
        self._tasks[id(scratchpad)] = scratchpad, number + 1  # kept, so that no other object gets its id
        if len(self._tasks) > _TASKS:
            self._tasks.popitem(last=False)
        named = repr((call.site.tenant, call.site.thread, call.site.namespace, number, self._budget))
        return sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    async def asked_before(self, place: str, ports: Ports) -> list[int]:
        """The limits, by their numbers, that this call asked about when the task ran before."""
        if not _has_answers():
            return []
        found = await ports.state.read(f"budget-asked/{place}")
        return [] if found is None else cast("list[int]", json.loads(found))

    async def note(self, place: str, asked: list[int], ports: Ports) -> None:
        """Keep that it asks."""
        await ports.state.write(f"budget-asked/{place}", json.dumps(asked), ttl_s=_KEPT_S)

    async def ask(self, limit: Limit, call: ModelCall | ToolCall, place: str, *, number: int) -> Answer:
        """The answer, which is in the ledger when this returns. Raises GraphInterrupt where there is none yet."""
        account = account_of(limit, call.site, await call.ports.ledger.now())
        (balance,) = await call.ports.ledger.balances([account])
        answer = _read(interrupt(_question(limit, balance.spent, balance.held)), limit, call.site.roles)
        if answer.amount > 0:
            entry = Entry(
                "correction",
                spent={account: -limit.units_of(answer.amount)},
                detail={"granted": answer.amount, "unit": limit.unit, "granted_by": call.site.user, "asked": True},
            )
            # Written once, however often the task runs: its place is its name.
            await call.ports.ledger.settle(f"grant-{place}-{number}/{self._budget}", call.site, entry)
        return answer


def _has_answers() -> bool:
    """Whether the task has been interrupted before: else nobody needs to be asked what was asked then."""
    config: Mapping[str, Any] = current_config() or {}
    scratchpad = cast("Mapping[str, Any]", config.get("configurable") or {}).get(_SCRATCHPAD)
    return scratchpad is not None and (bool(scratchpad.resume) or scratchpad.get_null_resume(False) is not None)


def _question(limit: Limit, spent: int, held: int) -> dict[str, Any]:
    """What the human sees: the standing, and how to answer."""
    return {
        "type": ASK_TYPE,
        "message": f"The budget of {limit.text} is spent. Grant more to go on.",
        "unit": limit.unit,
        "size": limit.size,
        "scope": limit.scope,
        "window": limit.window,
        "name": limit.name,
        "spent": spent / limit.unit_size,
        "held": held / limit.unit_size,
        "left": max(0.0, limit.size - spent / limit.unit_size),
        "answers": {"grant": f"an amount in {limit.unit}", "refuse": "true"},
    }


def _read(said: Any, limit: Limit, roles: tuple[str, ...]) -> Answer:
    """Only a clear amount grants anything, from one who may."""
    given: Any = cast("Mapping[str, Any]", said).get("grant") if isinstance(said, Mapping) else said
    if isinstance(given, bool) or not isinstance(given, int | float) or given == 0:
        refused: Literal["", "the answer was not understood"] = (
            "" if _is_refusal(said) else "the answer was not understood"
        )
        return Answer(0, refused)
    if not math.isfinite(given) or not 0 < given <= _MOST:
        return Answer(0, "the amount is out of range")
    if limit.grant_by and not set(limit.grant_by) & set(roles):
        return Answer(0, f"only {' or '.join(limit.grant_by)} may grant it")
    return Answer(float(given))


def _is_refusal(said: Any) -> bool:
    if isinstance(said, Mapping):
        answer = cast("Mapping[str, Any]", said)
        return bool(answer.get("refuse")) or answer.get("grant") in (0, None, False)
    return said in (None, False, 0, "", "no", "refuse")
