"""What clients may send to the operations on the store, and what those answer with; the answers are not validated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from waystation.api.bodies_threads import MAX_TTL_MINUTES, Limit, Offset
from waystation.api.dependencies import RequestBody
from waystation.runs.requests import JSONObject

Labels = Annotated[list[str], Field(description="A namespace: labels that are not empty and hold no period.")]
Pattern = Annotated[list[str] | None, Field(description="Labels; `*` stands for any one label.")]
IndexPath = Annotated[str, Field(max_length=500)]
Refresh = Annotated[bool | None, Field(description="Whether what is found lives on; as configured if left out.")]


class ItemPut(RequestBody):
    """An item to create or to replace."""

    namespace: Labels
    key: str = Field(description="What names the item in its namespace.")
    value: JSONObject
    index: Literal[False] | Annotated[list[IndexPath], Field(max_length=100)] | None = Field(
        default=None, description="Fields to be found by; `false`: not to be found by meaning; `null`: as configured."
    )
    ttl: Annotated[float, Field(gt=0, le=MAX_TTL_MINUTES, allow_inf_nan=False)] | None = Field(
        default=None, description="Minutes until it expires. `null`: never. As configured if left out."
    )


class ItemDelete(RequestBody):
    """Which item to delete."""

    namespace: Labels = Field(default_factory=list)
    key: str


class ItemSearch(RequestBody):
    """Which items to find."""

    namespace_prefix: Annotated[list[str] | None, Field(description="Below which namespace; all if left out.")] = None
    filter: JSONObject | None = Field(
        default=None,
        description="Members of the value and what they are: a value, or `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`.",
    )
    limit: Limit = 10
    offset: Offset = 0
    query: str | None = Field(default=None, description="Text whose meaning the items are sorted by.")
    refresh_ttl: Refresh = None


class NamespaceList(RequestBody):
    """Which namespaces to list."""

    prefix: Pattern = None
    suffix: Pattern = None
    max_depth: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="Deeper namespaces are shown cut to so many labels."
    )
    limit: Limit = 100
    offset: Offset = 0


class ItemObject(BaseModel):
    """An item of the store."""

    namespace: list[str]
    key: str
    value: JSONObject
    created_at: str
    updated_at: str


class FoundItem(ItemObject):
    """An item, and how near it is to the query."""

    score: float | None = Field(description="More is nearer; null without a query, and for items that are not indexed.")


class FoundItems(BaseModel):
    """A page of items."""

    items: list[FoundItem]


class Namespaces(BaseModel):
    """A page of namespaces."""

    namespaces: list[list[str]]
