"""Search over this repository's own documentation: the passages of `README.md` and `docs/` that fit a question best.

Ranked with Okapi BM25 over passages, one per heading; no index to build, no service, no embedding. For a few hundred
pages that is all it takes, and it answers in about a millisecond.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from langchain_core.tools import StructuredTool

ROOT: Final = Path(__file__).resolve().parent.parent

# The usual values of Okapi BM25: how fast repetition stops to count, and how much length is held against a passage.
_K1: Final = 1.5
_B: Final = 0.75
_LONGEST_PASSAGE: Final = 1200
_COMMON: Final = """
    a about an and are as at be but by can do does for from has have how i if in is it its me not of on or so that the
    their there they this to use was what when where which who why will with you your
"""
_STOP_WORDS: Final = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Passage:
    """A piece of one file under one heading."""

    source: str
    heading: str
    text: str


class DocsIndex:
    """BM25 over a fixed set of passages. Immutable once made, so that any number of threads may search it."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        # A heading says what a passage is about: its words count three times.
        self._counts = [Counter(terms(p.text) + terms(p.heading) * 3) for p in passages]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean = sum(self._lengths) / max(len(passages), 1) or 1.0
        self._found_in = Counter(term for counts in self._counts for term in counts)

    def search(self, query: str, *, limit: int = 3) -> list[Passage]:
        """The best passages first; none when no word of the query occurs."""
        wanted = set(terms(query))
        scored = [(self._score(wanted, at), at) for at in range(len(self._passages))]
        best = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))
        return [self._passages[at] for _, at in best[:limit]]

    def _score(self, wanted: Iterable[str], at: int) -> float:
        counts = self._counts[at]
        penalty = _K1 * (1 - _B + _B * self._lengths[at] / self._mean)
        return sum(self._rarity(term) * counts[term] * (_K1 + 1) / (counts[term] + penalty) for term in wanted)

    def _rarity(self, term: str) -> float:
        found = self._found_in[term]
        return math.log(1 + (len(self._passages) - found + 0.5) / (found + 0.5))


def terms(text: str) -> list[str]:
    """The words of a text that a search goes by: lower case, without stop words, plural endings cut off."""
    words = re.findall(r"[a-z0-9][a-z0-9_.-]*[a-z0-9]|[a-z0-9]", text.lower())
    return [_stem(word) for word in words if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def passages_of(source: str, markdown: str) -> Iterator[Passage]:
    """Cut a Markdown page at its headings, and long sections at blank lines."""
    heading = source
    for part in re.split(r"^(?=#{1,4} )", markdown, flags=re.MULTILINE):
        body = part
        if part.startswith("#"):
            first, _, body = part.partition("\n")
            heading = first.lstrip("# ").strip()
        for text in _pieces(body.strip()):
            yield Passage(source=source, heading=heading, text=text)


def _pieces(body: str) -> Iterator[str]:
    piece = ""
    for paragraph in re.split(r"\n\s*\n", body):
        if piece and len(piece) + len(paragraph) > _LONGEST_PASSAGE:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
    if piece:
        yield piece


@cache
def docs_index(root: Path = ROOT) -> DocsIndex:
    """The index over a project's `README.md` and `docs/**/*.md`, read once per process."""
    pages = [page for page in (root / "README.md", *sorted((root / "docs").rglob("*.md"))) if page.is_file()]
    read = ((page.relative_to(root).as_posix(), page.read_text(encoding="utf-8")) for page in pages)
    return DocsIndex([passage for source, text in read for passage in passages_of(source, text)])


def format_passages(passages: Sequence[Passage]) -> str:
    """Passages as a model reads them: each with the file and the heading it came from."""
    return "\n\n".join(f"[{p.source}] {p.heading}\n{p.text}" for p in passages)


def _search_docs(query: str) -> str:
    """Search Waystation's documentation. Returns the best passages, each with the name of its file in brackets."""
    return format_passages(docs_index().search(query)) or "No passage of the documentation matches this query."


search_docs = StructuredTool.from_function(func=_search_docs, name="search_docs")
