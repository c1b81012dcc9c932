"""The shape of `langgraph.json`: every key with its type and default, as frozen models.

`project.py` reads the file and turns what is wrong here into one message. A key that is not known is kept aside and
warned about: newer versions of the platform add keys, and a project must not stop working for that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ModuleNames = tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...]  # module, …, class
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"should be a regular expression ({e})") from None
    return value


def _runs_here(value: str) -> str:
    if (match := re.fullmatch(r"3\.(\d{1,3})", value)) is None or int(match[1]) < 11:
        raise ValueError('should be "3.11" or newer')
    return value


def _node(value: object) -> object:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdigit() or int(text) < 20:
        raise ValueError('should be "20" or newer')
    return text


Text = Annotated[str, Field(min_length=1)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, value: object) -> object:
        """The platform's own schema allows null nearly everywhere, for the default."""
        if not isinstance(value, dict):
            return value
        members = cast(dict[str, Any], value)
        return {k: v for k, v in members.items() if v is not None or k not in cls.model_fields}


class IndexKeys(_Keys):
    """`store.index`: semantic search in the store."""

    dims: Annotated[int, Field(ge=1, le=64_000)]
    embed: Annotated[str, Field(min_length=1)]
    fields: tuple[str, ...] = ("$",)


class StoreTtlKeys(_Keys):
    """`store.ttl`: how long items live, in minutes."""

    default_ttl: Minutes | None = None
    refresh_on_read: bool = True
    sweep_interval_minutes: Minutes | None = None


class StoreKeys(_Keys):
    index: IndexKeys | None = None
    ttl: StoreTtlKeys | None = None


class CheckpointTtlKeys(_Keys):
    """`checkpointer.ttl`: how long threads or their old checkpoints live, in minutes."""

    strategy: Literal["delete", "keep_latest"] = "delete"
    default_ttl: Minutes | None = None
    sweep_interval_minutes: Minutes = 5
    sweep_limit: Annotated[int, Field(ge=1)] = 1000


class SerdeKeys(_Keys):
    allowed_json_modules: ModuleNames | bool | None = None
    allowed_msgpack_modules: ModuleNames | bool | None = None
    pickle_fallback: bool = False


class CheckpointerKeys(_Keys):
    ttl: CheckpointTtlKeys | None = None
    serde: SerdeKeys | None = None
    path: str | None = None


class AuthCacheKeys(_Keys):
    cache_keys: tuple[str, ...] = ()
    ttl_seconds: Annotated[float, Field(gt=0)] | None = None
    max_size: Annotated[int, Field(ge=1)] | None = None


class AuthKeys(_Keys):
    path: str | None = None
    disable_studio_auth: bool = False
    openapi: dict[str, Any] | None = None
    cache: AuthCacheKeys | None = None


class PathKeys(_Keys):
    """An object that is only a path: `encryption`, `priority`."""

    path: Text


class CorsKeys(_Keys):
    """`http.cors`: replaces the default wholly, so what is left out is not allowed."""

    allow_origins: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ("GET",)
    allow_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_origin_regex: Annotated[str, AfterValidator(_compiles)] | None = None
    expose_headers: tuple[str, ...] = ()
    max_age: Annotated[int, Field(ge=0)] = 600


class HeaderKeys(_Keys):
    """Which request headers: patterns with `*`, `excludes` win."""

    includes: tuple[Text, ...] = ()
    excludes: tuple[Text, ...] = ()


class HttpKeys(_Keys):
    app: Text | None = None
    enable_custom_route_auth: bool = False
    middleware_order: Literal["middleware_first", "auth_first"] = "middleware_first"
    mount_prefix: Annotated[str, Field(pattern=r"^/.*[^/]$")] | None = None
    cors: CorsKeys | None = None
    configurable_headers: HeaderKeys | None = None
    logging_headers: HeaderKeys | None = None
    disable_assistants: bool = False
    disable_threads: bool = False
    disable_runs: bool = False
    disable_store: bool = False
    disable_mcp: bool = False
    disable_a2a: bool = False
    disable_ui: bool = False
    disable_meta: bool = False
    disable_webhooks: bool = False


class WebhookUrlKeys(_Keys):
    require_https: bool = False
    allowed_domains: tuple[str, ...] | None = None
    allowed_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] | None = None
    max_url_length: Annotated[int, Field(ge=1)] | None = None
    disable_loopback: bool = True


class WebhookKeys(_Keys):
    url: WebhookUrlKeys = WebhookUrlKeys()
    headers: dict[str, str] = Field(default_factory=dict)
    env_prefix: str = "LG_WEBHOOK_"


class SourceKeys(_Keys):
    kind: Literal["uv"]
    root: str | None = None
    package: str | None = None


def _env_keys(value: object) -> object:
    """A path, or an object of plain values; in one message, where a union would give one for each member."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise ValueError("should be the path of a .env file or an object")
    members = cast(dict[str, Any], value)
    for name, member in members.items():
        if isinstance(member, bool) or not isinstance(member, (str, int, float)):
            raise ValueError(f"the value of {name} should be a text")
    return {name: str(member) for name, member in members.items()}


class OwnHttpKeys(_Keys):
    """`waystation.http`: switches of what no other LangGraph server has."""

    disable_openai: bool = False


class OpenAIKeys(_Keys):
    """`waystation.openai`: by graph, the only nodes whose tokens are an answer."""

    answer_nodes: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])


class McpKeys(_Keys):
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


class VectorKeys(_Keys):
    """`waystation.store.vectors`: how pgvector keeps the vectors of `store.index`."""

    index: Literal["flat", "hnsw", "ivfflat"] = "flat"
    distance: Literal["cosine", "l2", "inner_product"] = "cosine"
    type: Literal["vector", "halfvec"] = "vector"


class OwnStoreKeys(_Keys):
    """`waystation.store`."""

    vectors: VectorKeys = VectorKeys()


class WaystationKeys(_Keys):
    """`waystation`: what is ours alone."""

    store: OwnStoreKeys = OwnStoreKeys()

    auth: OwnAuthKeys | None = None
    mcp: McpKeys = McpKeys()
    http: OwnHttpKeys = OwnHttpKeys()
    openai: OpenAIKeys = OpenAIKeys()


class ProjectKeys(_Keys):
    """The whole file. What only the building of an image needs is accepted and not used."""

    graphs: Annotated[dict[str, Any], Field(min_length=1)]
    dependencies: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    env: Annotated[str | dict[str, str], BeforeValidator(_env_keys)] = Field(default_factory=dict[str, str])
    store: StoreKeys | None = None
    checkpointer: CheckpointerKeys | None = None
    auth: AuthKeys | None = None
    encryption: PathKeys | None = None
    priority: PathKeys | None = None
    http: HttpKeys | None = None
    webhooks: WebhookKeys | None = None
    ui: dict[str, str] | None = None
    ui_config: dict[str, Any] | None = None
    waystation: WaystationKeys = WaystationKeys()
    # For the image only
    python_version: Annotated[str, AfterValidator(_runs_here)] | None = None
    node_version: Annotated[str, BeforeValidator(_node)] | None = None
    api_version: Text | None = None
    base_image: Text | None = None
    image_distro: Literal["debian", "wolfi", "bookworm"] | None = None
    dockerfile_lines: tuple[str, ...] = ()
    pip_config_file: str | None = None
    pip_installer: Literal["auto", "pip", "uv"] | None = None
    keep_pkg_tools: bool | tuple[Literal["pip", "setuptools", "wheel"], ...] | None = None
    source: SourceKeys | None = None


_NOT_OURS_TO_CHECK = {"$schema", "_INTERNAL_docker_tag"}


def unknown_keys(keys: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all keys below `keys` that no model knows, each with what may have been meant (or nothing)."""
    known = type(keys).model_fields
    for name in keys.model_extra or {}:
        if name not in _NOT_OURS_TO_CHECK:
            near = difflib.get_close_matches(name, [k for k in known if k not in keys.model_fields_set], n=1)
            yield prefix + name, f"; did you mean {prefix}{near[0]}?" if near else ""
    for name in known:
        value = getattr(keys, name)
        if isinstance(value, BaseModel):
            yield from unknown_keys(value, f"{prefix}{name}.")
