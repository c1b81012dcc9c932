"""What guards say to their ledger, in the form in which migration 0040's function reads it.

Texts are cut to what an index takes, and amounts to what adds up without overflowing: both come from programs and
providers, and a wrong figure of one call must not make an account useless.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid4

from waystation_guards.calls import CallSite
from waystation_guards.ports import Account, Entry, Hold

_MOST: Final = 2**62
_MOST_HELD: Final = 2**58
_LONGEST: Final = 400


@lru_cache(maxsize=4096)
def account_id(account: Account) -> str:
    """The account's id: the same in every process, also for names that are too long for an index."""
    parts = (account.tenant, account.scope, account.owner, account.unit, account.window)
    digest = sha256("".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass"))
    return str(UUID(bytes=digest.digest()[:16]))


def reserve_op(call: str, site: CallSite, holds: Sequence[Hold], *, ttl_s: float) -> dict[str, Any]:
    return {
        "do": "reserve",
        **_site(site),
        "call": short(call),
        "ttl": ttl_s,
        "of_run": _is_uuid(site.thread) and _is_uuid(site.run),
        "holds": [
            {
                **_account(hold.account),
                "amount": _within(hold.amount, 0, _MOST_HELD),
                "worst": _within(max(hold.amount, hold.worst), 0, _MOST_HELD),
                "limit": _within(hold.limit, -_MOST, _MOST),
            }
            for hold in holds
        ],
    }


def settle_op(call: str, site: CallSite, entry: Entry) -> dict[str, Any]:
    return {
        "do": "settle",
        **_site(site),
        "call": short(call),
        "call_id": short(call.partition("/")[0]),
        "kind": entry.kind,
        "model": short(entry.model),
        "cost": None if entry.cost_nano_usd is None else _within(entry.cost_nano_usd, -_MOST, _MOST),
        "estimate": None if entry.estimate_nano_usd is None else _within(entry.estimate_nano_usd, -_MOST, _MOST),
        "price_version": short(entry.price_version),
        "usage": dict(entry.usage),
        "spent": [
            {**_account(account), "amount": _within(amount, -_MOST, _MOST)} for account, amount in entry.spent.items()
        ],
        "detail": dict(entry.detail),
        "claim": uuid4().hex,
    }


def release_op(call: str, tenant: str) -> dict[str, Any]:
    return {"do": "release", "tenant": short(tenant), "call": short(call), "call_id": short(call.partition("/")[0])}


def short(text: str) -> str:
    """The text as Postgres takes it; where it is too long for an index, its beginning and a digest of it."""
    if not text.isascii() or "\0" in text:
        text = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}~{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _account(account: Account) -> dict[str, Any]:
    return {
        "tenant": short(account.tenant),
        "id": account_id(account),
        "scope": short(account.scope),
        "owner": short(account.owner),
        "unit": account.unit,
        "window": short(account.window),
    }


def _site(site: CallSite) -> dict[str, Any]:
    return {
        "tenant": short(site.tenant),
        "thread": short(site.thread),
        "run": short(site.run),
        "attempt": _within(site.attempt, 0, 2**31 - 1),
        "node": short(site.node),
        "namespace": short(site.namespace),
        "assistant": short(site.assistant),
        "graph": short(site.graph),
        "user": short(site.user),
        "key": short(site.key),
    }


def _within(number: int, least: int, most: int) -> int:
    return max(least, min(int(number), most))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
