"""Compares two sets of transcripts, ours and the reference's, and fails on every difference that nobody explained.

    python -m tests.contract.compare --ours DIR [--reference DIR] [--only 01,02] [--explained]

Both directories hold what the recorder wrote: one file per scenario, one exchange per line. Exchanges are aligned by
the name of their step, ids, times and ports by `normalise.py`. What may differ stands in `differences.py`, with its
reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final, cast

from .differences import EXPLAINED, OF_THE_RECORDER, Explained
from .normalise import Ids, ids_in, shape, template, untimed

TRANSCRIPTS: Final = Path(__file__).parent / "transcripts"
ABSENT: Final = "<absent>"


@dataclass(frozen=True)
class Difference:
    """One place where ours is not what the reference has. `where` is `file/step`, `path` leads to the place in it."""

    where: str
    path: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.where}: {self.path}\n    reference {_short(self.theirs)}\n    ours      {_short(self.ours)}"


@dataclass(frozen=True)
class Report:
    """What was compared and found."""

    steps: int
    unexplained: list[Difference]
    explained: list[tuple[Difference, Explained]]


def compare(ours: Path, reference: Path = TRANSCRIPTS, *, only: Iterable[str] = ()) -> Report:
    """Compare all scenarios of the reference, or those whose file names begin with one of `only`."""
    prefixes = tuple(only)
    steps, unexplained, explained = 0, list[Difference](), list[tuple[Difference, Explained]]()
    for path in sorted(reference.glob("*.jsonl")):
        if prefixes and not path.name.startswith(prefixes):
            continue
        theirs = read(path)
        steps += len(theirs)
        for difference in compare_scenario(path.stem, theirs, read(ours / path.name)):
            rule = next((rule for rule in (*EXPLAINED, *OF_THE_RECORDER) if rule.covers(difference)), None)
            if rule is None:
                unexplained.append(difference)
            else:
                explained.append((difference, rule))
    return Report(steps, unexplained, explained)


def read(path: Path) -> list[dict[str, Any]]:
    """The exchanges of a transcript; none if the file is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def compare_scenario(name: str, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> Iterator[Difference]:
    """The differences between two recordings of one scenario, in the reference's order of steps."""
    ids = Ids()
    recorded = _by_step(ours)
    for key, exchange in _by_step(theirs).items():
        where = f"{name}/{key[0]}" + (f" ({key[1]})" if key[1] > 1 else "")
        mine = recorded.pop(key, None)
        if mine is None:
            yield Difference(where, "", "a step", ABSENT)
        else:
            yield from compare_exchange(where, exchange, mine, ids)
    for key, exchange in recorded.items():
        yield Difference(f"{name}/{key[0]}", "", ABSENT, exchange.get("note", "a step"))


def compare_exchange(
    where: str, theirs: dict[str, Any], ours: dict[str, Any], ids: Ids | None = None
) -> Iterator[Difference]:
    """The differences between two exchanges. The requests come first: they settle which ids stand for which."""
    ids = ids or Ids()
    a, b = untimed(theirs), untimed(ours)
    for part in ("request", "response"):
        for path, left, right in _differ(a.get(part), b.get(part), part, ids):
            yield Difference(where, path, left, right)


def _by_step(exchanges: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Exchanges by step name and how often the name came before; a note of the recorder counts as a step."""
    seen = Counter[str]()
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for exchange in exchanges:
        step = str(exchange.get("step", "(note)"))
        seen[step] += 1
        found[step, seen[step]] = exchange
    return found


_Found = Iterator[tuple[str, Any, Any]]


def _differ(a: Any, b: Any, path: str, ids: Ids) -> _Found:
    """Every place where `b` is not as `a`; `a` is the reference's."""
    if isinstance(a, dict) and isinstance(b, dict):
        yield from _differ_in_members(cast("dict[str, Any]", a), cast("dict[str, Any]", b), path, ids)
    elif isinstance(a, list) and isinstance(b, list):
        yield from _differ_in_items(cast("list[Any]", a), cast("list[Any]", b), path, ids)
    elif isinstance(a, str) and isinstance(b, str):
        if template(a) != template(b) or not ids.match_all(ids_in(a), ids_in(b)):
            yield path, a, b
    elif type(cast("object", a)) is not type(b) or a != b:
        yield path, a, b


def _differ_in_members(a: dict[str, Any], b: dict[str, Any], path: str, ids: Ids) -> _Found:
    pairs = [(key, key) for key in a if key in b]
    # Members named by an id, such as a thread's interrupts: the same names on both sides are nothing to rely on.
    left, right = _named_by_id(a, b), _named_by_id(b, a)
    if len(left) == len(right):
        pairs += zip(left, right, strict=True)
    for theirs, ours in pairs:
        member = f"{path}.{template(theirs)}"
        if theirs != ours:
            yield from _differ(theirs, ours, f"{member}()", ids)
        yield from _differ(a[theirs], b[ours], member, ids)
    for key in [key for key in a if key not in {x for x, _ in pairs}]:
        yield f"{path}.{template(key)}", a[key], ABSENT
    for key in [key for key in b if key not in {y for _, y in pairs}]:
        yield f"{path}.{template(key)}", ABSENT, b[key]


def _named_by_id(members: dict[str, Any], others: dict[str, Any]) -> list[str]:
    return sorted((key for key in members if key not in others and ids_in(key)), key=lambda key: shape(members[key]))


def _differ_in_items(a: list[Any], b: list[Any], path: str, ids: Ids) -> _Found:
    if len(a) == len(b):
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _differ(left, right, f"{path}.{i}", ids)
        return
    matcher = SequenceMatcher(None, [shape(x) for x in a], [shape(x) for x in b], autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        common = min(a1 - a0, b1 - b0) if kind != "insert" else 0
        for i in range(common):
            yield from _differ(a[a0 + i], b[b0 + i], f"{path}.{a0 + i}", ids)
        for i in range(a0 + common, a1):
            yield f"{path}.{i}", a[i], ABSENT
        for i in range(b0 + common, b1):
            yield f"{path}.{i}", ABSENT, b[i]


def _short(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.compare", description=__doc__.split("\n")[0])  # pyright: ignore[reportOptionalMemberAccess]  # it has one
    parser.add_argument("--ours", type=Path, required=True, help="directory with our transcripts")
    parser.add_argument("--reference", type=Path, default=TRANSCRIPTS, help="directory with the reference's")
    parser.add_argument("--only", default="", help="scenarios, by the beginnings of their names: 01,02")
    parser.add_argument("--explained", action="store_true", help="also list the explained differences, by reason")
    args = parser.parse_args(argv)
    report = compare(args.ours, args.reference, only=[p for p in args.only.split(",") if p])
    lines = [str(difference) for difference in report.unexplained]
    if args.explained:
        lines += _by_reason(report.explained)
        lines += [] if args.only else _idle(report.explained)
    lines.append(
        f"{report.steps} steps, {len(report.explained)} explained differences, {len(report.unexplained)} unexplained"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if report.unexplained else 0


def _by_reason(explained: list[tuple[Difference, Explained]]) -> Iterator[str]:
    for reason, times in Counter(rule.reason for _, rule in explained).most_common():
        yield f"{times:5} × {reason}"


def _idle(explained: list[tuple[Difference, Explained]]) -> Iterator[str]:
    used = {id(rule) for _, rule in explained}
    for rule in (*EXPLAINED, *OF_THE_RECORDER):
        if id(rule) not in used:
            yield f"explains nothing: {rule.where}: {rule.path}"


if __name__ == "__main__":
    sys.exit(main())
