"""A fleet that serves a policy over a paid provider: what the provider was asked and charges, what the ledger says.

The provider is in this process, and knows calls by the id that they have in the ledger.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from chaos.fleet import Fleet, Node, fleet_of
from chaos.runs_api import client_of
from chaos.witness import Witness
from guard_spending import entries_of
from providers import FaultServer, Plan, Seen
from services import Valkey
from waystation.guarding.recalculation import rebuild
from waystation_db.pool import Database

PROJECT = Path(__file__).parents[1] / "fixtures" / "projects" / "spending"
BUDGET = 120_000_000
"""Nano-dollars, as the amounts below."""

LEAST, MOST = 5, 40
"""Tokens of an answer; the policy's cap is the most."""

DEAREST = MOST * 100_000 + 60 * 10_000
ONE_CALLS_ERROR = (MOST - LEAST) * 100_000 + 60 * 10_000
"""Between the cheapest and the dearest call. No prompt has 60 tokens."""

# What a run's message may ask of its first attempt.
NOTHING, HALF = "begin no answer", "stop in the middle of the answer"
DIES = "answer, and die with the whole answer in hand"
CUT_OFF = ("hang", "hang_mid_stream")


@dataclass(frozen=True, slots=True)
class Spending:
    """The deployment and its provider."""

    fleet: Fleet
    workers: list[Node]
    provider: FaultServer
    client: httpx.AsyncClient
    witness: Witness
    db: Database
    redis: Valkey | None

    def open_calls(self) -> list[Seen]:
        """Requests that the provider has neither answered nor lost."""
        return [seen for seen in self.provider.requests if seen.ended == "open"]

    def bill(self) -> dict[str, int]:
        """What the provider charges for each call, in nano-dollars."""
        charges = self.provider.settled(deadline_s=30).bill.charges
        assert all(charge.user for charge in charges)
        assert len({charge.user for charge in charges}) == len(charges), "a call was paid twice"
        return {charge.user: int(charge.nano_usd) for charge in charges}

    async def booked(self) -> Booked:
        """The ledger, which has to agree with its balances."""
        assert await rebuild(self.db, "default", dry_run=True) == [], "balances are not what the entries say"
        costs: Counter[str] = Counter()
        outcomes: defaultdict[str, set[str]] = defaultdict(set)
        for entry in await entries_of(self.db):
            call = entry["call"].partition("/")[0].partition("#")[0]
            costs[call] += entry["cost_nano_usd"] or 0
            outcomes[call].add(entry["detail"].get("outcome", ""))
        return Booked(costs, outcomes)

    async def account(self) -> tuple[int, int, int]:
        """What of the budget is spent, held, and held at worst."""
        rows = await self.witness.ask(
            "select spent, held, at_risk from guard_account where scope = 'tenant' and owner = 'default'"
        )
        return rows[0][0], rows[0][1], rows[0][2]

    async def places(self) -> set[str]:
        """The calls that have a place among those that may be open at a time."""
        if self.redis is None:
            return {row[0] for row in await self.witness.ask("select holder from guard_place")}
        with self.redis.client() as redis:
            found: Any = redis
            return {one.decode() for key in found.scan_iter("*places*") for one in found.zrange(key, 0, -1)}

    async def a_minute_later(self) -> None:
        """Let the time of all places be over, as it is a minute after the last that was heard of their calls."""
        await self.witness.ask("update guard_place set until = until - interval '1 minute' returning 1")
        if self.redis is not None:
            with self.redis.client() as redis:
                found: Any = redis
                for key in found.scan_iter("*places*"):
                    for holder in found.zrange(key, 0, -1):
                        found.zincrby(key, -60, holder)


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger counts for each call, in nano-dollars, and what it says of how the call ended."""

    costs: Mapping[str, int]
    outcomes: Mapping[str, set[str]]

    @property
    def total(self) -> int:
        return sum(self.costs.values())

    def that_are(self, *outcomes: str) -> set[str]:
        """The calls of which one of these was said at some time."""
        return {call for call, said in self.outcomes.items() if said & set(outcomes)}


@asynccontextmanager
async def spending(
    directory: Path, db: Database, database_uri: str, redis: Valkey | None, *, workers: int, **settings: str
) -> AsyncGenerator[Spending]:
    """An API process and workers with four slots each."""
    with FaultServer(answers=_words) as provider:
        provider.target().when(_fate)
        provider.always(Plan(pause_s=0.01))
        with fleet_of(
            directory,
            database_uri,
            redis_url=redis.url if redis else None,
            project=PROJECT,
            imports=("langchain_openai",),
            **{"PROVIDER_URL": provider.openai, "N_JOBS_PER_WORKER": "4", **settings},
        ) as fleet:
            witness = await Witness(database_uri, fleet.executions).install()
            api, nodes = fleet.api(), fleet.workers(workers)
            await api.ready()
            async with client_of(api.url) as client:
                yield Spending(fleet, nodes, provider, client, witness, db, redis)


def _fate(body: Mapping[str, Any]) -> Plan | None:
    """What becomes of a request: the first attempt's first call may be meant to be cut off."""
    if body["metadata"]["attempt"] == "1" and len(body["messages"]) == 1:
        match body["messages"][0]["content"]:
            case "begin no answer":
                return Plan("hang")
            case "stop in the middle of the answer":
                return Plan("hang_mid_stream", after=LEAST - 1)
            case _:
                pass
    return None


def _words(body: Mapping[str, Any]) -> str:
    return "word " * random.Random(body["user"]).randint(LEAST, MOST)
