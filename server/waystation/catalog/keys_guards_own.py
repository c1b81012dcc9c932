"""Members of `waystation.guards` that are settings of no guard: the kill switch, alerts, metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from waystation.catalog.keys_form import Text


class OwnKeys(BaseModel):
    """An object whose unknown members stop the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class KillKeys(OwnKeys):
    """`kill`: what a request for a run that is stopped is answered with."""

    status: Literal[403, 503] = 403


class AlertKeys(OwnKeys):
    """`alerts`: where it is told that a part of a budget is spent."""

    webhook: Annotated[str, Field(pattern=r"^https?://", max_length=2000)] | None = None


class MetricsKeys(OwnKeys):
    """`metrics`: tenants and models by whose name spending is counted; all others are counted as `other`. Without
    `models` the first hundred have names."""

    tenants: tuple[Text, ...] = ()
    models: tuple[Text, ...] | None = None
