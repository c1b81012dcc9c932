"""Every fault of a provider, lasting and passing, by every way to deal with it: what a reader of the stream saw.

    python -m bench.guards.failover_matrix [--quick]

Two targets behind clients for OpenAI's API, served on this machine; the first has the fault, the second is well.
Prints two tables in Markdown: totals for each way, and a line for each fault.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from failover_cases import FAULTS, WAYS, Seen, obedient, play
from providers import FaultServer
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports

Played = Mapping[tuple[str, str, bool], Seen]


async def measure(server: FaultServer, faults: Sequence[str]) -> Played:
    """All runs, one after another."""
    found: dict[tuple[str, str, bool], Seen] = {}
    for way, make in WAYS.items():
        for name in faults:
            for lasting in (True, False):
                use_ports(memory_ports())
                found[way, name, lasting] = await play(server, make, name, lasting=lasting)
        print(f"  {way}: done", file=sys.stderr)
    return found


def totals(played: Played, faults: Sequence[str]) -> list[list[str]]:
    rows = [
        [
            "",
            "lasting survived",
            "passing survived",
            "wrong answer as success",
            "tokens repeated unmarked",
            "tokens retracted",
            "tokens paid twice",
            "first token, median",
            "first token, worst",
        ]
    ]
    for way in WAYS:
        seen = [played[way, name, lasting] for name in faults for lasting in (True, False)]
        firsts = [one.first_s for one in seen if one.survived and one.first_s]
        rows.append(
            [
                way,
                f"{sum(played[way, name, True].survived for name in faults)}/{len(faults)}",
                f"{sum(played[way, name, False].survived for name in faults)}/{len(faults)}",
                str(sum(one.wrong for one in seen)),
                str(sum(one.repeated for one in seen)),
                str(sum(one.retracted for one in seen)),
                str(sum(one.paid_twice for one in seen)),
                f"{median(firsts) * 1000:.0f} ms",
                f"{max(firsts) * 1000:.0f} ms",
            ]
        )
    return rows


def by_fault(played: Played, faults: Sequence[str]) -> list[list[str]]:
    rows = [["fault, lasting / passing", *WAYS]]
    for name in faults:
        cells = [" / ".join(_cell(played[way, name, lasting]) for lasting in (True, False)) for way in WAYS]
        rows.append([name, *cells])
    return rows


def _cell(seen: Seen) -> str:
    if seen.error:
        return seen.error
    outcome = "answer" if seen.survived else "wrong"
    notes = [
        f"{seen.repeated} repeated" if seen.repeated else "",
        f"{seen.retracted} retracted" if seen.retracted else "",
        "continued" if seen.told.get("continued") else "",
    ]
    said = ", ".join(note for note in notes if note)
    return f"{outcome} ({said})" if said else outcome


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five faults only")
    faults = FAULTS[::6] if parser.parse_args().quick else FAULTS
    logging.disable(logging.CRITICAL)
    with FaultServer(answers=obedient) as server:
        played = asyncio.run(measure(server, faults))
    print(table(totals(played, faults)), table(by_fault(played, faults)), sep="\n\n")


if __name__ == "__main__":
    main()
