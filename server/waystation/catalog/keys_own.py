"""What is ours alone in `langgraph.json`: everything below `waystation`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from waystation.catalog.keys_audit import AuditKeys
from waystation.catalog.keys_form import Keys

MOST_SECRETS = 4
"""With which a tenant's webhooks may be signed at a time; a rotation needs two."""


class OwnHttpKeys(Keys):
    """`waystation.http`: switches of what no other LangGraph server has."""

    disable_openai: bool = False


class OpenAIKeys(Keys):
    """`waystation.openai`: by graph, the only nodes whose tokens are an answer."""

    answer_nodes: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])


class McpKeys(Keys):
    """`waystation.mcp`: origins of pages that may call `/mcp` besides those of this machine; `*` allows all."""

    allowed_origins: tuple[str, ...] = ()


class ClaimKeys(BaseModel):
    """`waystation.auth.jwt.claims`: which claims say what; a dot leads into an object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str = "sub"
    tenant: str | None = None
    roles: str | None = None
    permissions: str | None = None


RoleName = Literal["admin", "service", "user", "reader"]
TokenAlgorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "HS256",
    "HS384",
    "HS512",
]


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class JwtKeys(BaseModel):
    """`waystation.auth.jwt`: which tokens are taken, and whom they stand for. A misspelt key stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more), Field(min_length=1)
    ]
    jwks: Annotated[str, Field(min_length=1)] | None = None
    algorithms: Annotated[tuple[TokenAlgorithm, ...], Field(min_length=1)] = ("RS256",)
    leeway_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 30
    claims: ClaimKeys = ClaimKeys()
    roles: dict[str, RoleName] = Field(default_factory=dict[str, RoleName])
    default_role: RoleName | None = None


class OwnAuthKeys(BaseModel):
    """`waystation.auth`: credentials without an Auth file, tenants, and what is not allowed by any handler."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Literal["allow", "deny"] = "allow"
    tenant: str | None = None
    api_keys: bool = False
    jwt: JwtKeys | None = None


VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Variables = Annotated[
    tuple[VariableName, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=MOST_SECRETS)
]


class OwnWebhookKeys(BaseModel):
    """`waystation.webhooks`: by tenant, the variables with the secrets of its webhooks. A misspelt key stops the
    start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: dict[Annotated[str, Field(min_length=1)], Variables] = Field(default_factory=dict[str, Variables])


class VectorKeys(Keys):
    """`waystation.store.vectors`: how pgvector keeps the vectors of `store.index`."""

    index: Literal["flat", "hnsw", "ivfflat"] = "flat"
    distance: Literal["cosine", "l2", "inner_product"] = "cosine"
    type: Literal["vector", "halfvec"] = "vector"


class OwnStoreKeys(Keys):
    """`waystation.store`."""

    vectors: VectorKeys = VectorKeys()


class WaystationKeys(Keys):
    """`waystation`: what is ours alone."""

    store: OwnStoreKeys = OwnStoreKeys()

    auth: OwnAuthKeys | None = None
    mcp: McpKeys = McpKeys()
    http: OwnHttpKeys = OwnHttpKeys()
    openai: OpenAIKeys = OpenAIKeys()
    webhooks: OwnWebhookKeys = OwnWebhookKeys()
    guards: dict[str, Any] | None = None
    """Read by `keys_guards.py`, which is loaded only where there are any."""
    audit: AuditKeys | None = None
