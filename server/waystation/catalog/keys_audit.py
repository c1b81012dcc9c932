"""`waystation.audit` of a project: whether an audit log is kept, of what, and how surely."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

AuditTopic = Literal["auth", "api", "runs", "guards", "tools"]
TOPICS: tuple[AuditTopic, ...] = get_args(AuditTopic)


class AuditKeys(BaseModel):
    """The object `audit`; an empty one keeps the log as it is by default. A misspelt key stops the start.

    `what`: auth (refused credentials and forbidden requests), api (requests that change something), runs (created and
    resumed), guards (refusals, approvals, screening, the policy at each start), tools (every tool call, also those that
    nobody refused). `arguments`: how those of tools are kept. `durable`: whoever records waits for the commit.
    `keep_days`: workers remove what is older than so many whole days; None keeps everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: tuple[AuditTopic, ...] = ("auth", "api", "runs", "guards")
    arguments: Literal["redacted", "hashed", "none"] = "redacted"
    durable: bool = False
    keep_days: Annotated[int, Field(ge=1, le=36500, strict=True)] | None = None
