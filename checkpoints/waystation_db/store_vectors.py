"""How the store finds items by meaning: which of their texts are embedded, where the vectors are, how far two are.

    pgvector in the database    LangGraph's table `store_vectors`; exact, or by an index of pgvector
    no pgvector                 our table `store_embedding`; exact, Postgres multiplies: about 0.15 ms for 1,536 numbers

Both give the same results. Nothing here knows where the embeddings come from.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, LiteralString

from langgraph.store.base import PutOp, get_text_at_path, tokenize_path

from waystation_db.sql import load
from waystation_db.store_names import MAX_FIELD_BYTES

Vector = Sequence[float]
Embed = Callable[[list[str]], Awaitable[Sequence[Vector]]]
Kind = Literal["flat", "hnsw", "ivfflat"]
Distance = Literal["cosine", "l2", "inner_product"]
VectorType = Literal["vector", "halfvec"]

MAX_PGVECTOR_DIMS = 16_000
MAX_INDEXED_DIMS: dict[VectorType, int] = {"vector": 2_000, "halfvec": 4_000}
"""What pgvector can index; it stores more."""

_LARGEST_REAL = 3.4e38

_items, _sql = load("store"), load("store_index")


@dataclass(frozen=True, slots=True)
class StoreIndex:
    """How items are embedded. `embed` turns texts into vectors of `dims` numbers; `name` says which model that is."""

    dims: int
    embed: Embed
    name: str
    fields: tuple[str, ...] = ("$",)
    kind: Kind = "flat"
    distance: Distance = "cosine"
    vector_type: VectorType = "vector"

    def with_embed(self, embed: Embed) -> StoreIndex:
        """The same vectors, got in another way."""
        return replace(self, embed=embed)


@dataclass(frozen=True, slots=True)
class Text:
    """A text of an item that is to be embedded, and from which field it is."""

    field_name: str
    text: str


class BadEmbedding(ValueError):
    """What the embedding function returned are not the vectors that were asked for."""


def texts_of(op: PutOp, index: StoreIndex) -> list[Text]:
    """The texts of an item to embed; none when it is not to be found by meaning."""
    if op.value is None or op.index is False:
        return []
    found: list[Text] = []
    for path in index.fields if op.index is None else op.index:
        tokens = "$" if path == "$" else tokenize_path(path)
        texts = get_text_at_path(op.value, tokens)
        found += [Text(f"{path}.{i}" if len(texts) > 1 else path, text) for i, text in enumerate(texts)]
    for text in found:
        if len(text.field_name.encode(errors="replace")) > MAX_FIELD_BYTES:
            raise ValueError(f"index: the path {text.field_name[:80]!r}... is longer than {MAX_FIELD_BYTES} bytes")
    return found


async def embedded(index: StoreIndex, texts: list[str]) -> list[list[float]]:
    """The texts' vectors, checked.

    Raises:
        BadEmbedding: other numbers, or another number of them, than `dims` says.
        Whatever the user's function raises.
    """
    vectors = await index.embed(texts)
    if len(vectors) != len(texts):
        raise BadEmbedding(f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts")
    return [_checked(vector, index.dims) for vector in vectors]


def _checked(vector: Vector, dims: int) -> list[float]:
    numbers = [float(number) for number in vector]
    if len(numbers) != dims:
        raise BadEmbedding(
            f"the embedding function returned a vector of {len(numbers)} numbers, store.index.dims is {dims}"
        )
    if not all(abs(number) < _LARGEST_REAL for number in numbers):
        raise BadEmbedding("the embedding function returned a number that is infinite or none")
    return numbers


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """The vectors of one database: their table, and the statements on it."""

    exact: bool
    table: LiteralString
    put: LiteralString
    forget: LiteralString
    search: LiteralString
    nearest: LiteralString | None
    """By an index of pgvector; None where all are compared."""
    scans_on: bool
    """That index can look further when conditions sort out what it found."""
    distance: Distance

    @classmethod
    def in_pgvector(cls, index: StoreIndex, *, scans_on: bool) -> VectorSpace:
        kind: LiteralString = index.vector_type
        distance = _sql["distance_" + index.distance].replace("{vector_type}", kind)
        nearest = None
        if index.kind != "flat":
            by_index = _sql["nearest_" + index.distance].replace("{vector_type}", kind)
            nearest = search_statement("search_nearest").replace("{distance}", by_index)
        return cls(
            exact=False,
            table="store_vectors",
            put=_sql["put_vectors"].replace("{vector_type}", kind),
            forget=_sql["forget_vectors"].replace("{vectors}", "store_vectors"),
            search=_by_meaning("store_vectors", distance),
            nearest=nearest,
            scans_on=scans_on,
            distance=index.distance,
        )

    @classmethod
    def without_pgvector(cls, index: StoreIndex) -> VectorSpace:
        return cls(
            exact=True,
            table="store_embedding",
            put=_sql["put_embeddings"],
            forget=_sql["forget_vectors"].replace("{vectors}", "store_embedding"),
            search=_by_meaning("store_embedding", _sql["distance_exact_" + index.distance]),
            nearest=None,
            scans_on=False,
            distance=index.distance,
        )

    def put_params(self, rows: Sequence[tuple[str, str, str, list[float]]]) -> dict[str, Any]:
        """For `put`: prefix, key, field and vector of each."""
        prefixes, keys, fields, vectors = zip(*rows, strict=True)
        params: dict[str, Any] = {"prefixes": list(prefixes), "keys": list(keys), "fields": list(fields)}
        params["embeddings"] = [self._text(vector) for vector in vectors]
        if self.exact:
            params["norms"] = [_norm(vector) for vector in vectors]
        return params

    def query_params(self, vector: list[float]) -> dict[str, Any]:
        """For `search` and `nearest`."""
        return {"query": vector, "norm": _norm(vector)} if self.exact else {"query": self._text(vector)}

    def score(self, distance: float | None) -> float | None:
        """More is nearer. Null for an item without vectors."""
        if distance is None:
            return None
        return 1 - distance if self.distance == "cosine" else -distance

    def _text(self, vector: list[float]) -> str:
        inner = ",".join(map(repr, vector))
        return "{" + inner + "}" if self.exact else "[" + inner + "]"


def search_statement(name: LiteralString) -> LiteralString:
    """A search of queries/store.sql with its parts put in, all but those that depend on the vectors."""
    return _items[name].replace("{where}", _items["where"]).replace("{refresh}", _items["refresh"])


def _by_meaning(table: LiteralString, distance: LiteralString) -> LiteralString:
    return search_statement("search_by_meaning").replace("{vectors}", table).replace("{distance}", distance)


def _norm(vector: list[float]) -> float:
    return math.sqrt(math.fsum(number * number for number in vector))
