"""The shape of `langgraph.json`: every key with its type and default, as frozen models.

`project.py` reads the file and turns what is wrong here into one message. What stands below `waystation` is in
`keys_own.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from waystation.catalog.keys_form import Keys, Text, compiles, recent_node, runs_here
from waystation.catalog.keys_own import WaystationKeys

ModuleNames = tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...]  # module, …, class
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class IndexKeys(Keys):
    """`store.index`: semantic search in the store."""

    dims: Annotated[int, Field(ge=1, le=64_000)]
    embed: Annotated[str, Field(min_length=1)]
    fields: tuple[str, ...] = ("$",)


class StoreTtlKeys(Keys):
    """`store.ttl`: how long items live, in minutes."""

    default_ttl: Minutes | None = None
    refresh_on_read: bool = True
    sweep_interval_minutes: Minutes | None = None


class StoreKeys(Keys):
    index: IndexKeys | None = None
    ttl: StoreTtlKeys | None = None


class CheckpointTtlKeys(Keys):
    """`checkpointer.ttl`: how long threads or their old checkpoints live, in minutes."""

    strategy: Literal["delete", "keep_latest"] = "delete"
    default_ttl: Minutes | None = None
    sweep_interval_minutes: Minutes = 5
    sweep_limit: Annotated[int, Field(ge=1)] = 1000


class SerdeKeys(Keys):
    allowed_json_modules: ModuleNames | bool | None = None
    allowed_msgpack_modules: ModuleNames | bool | None = None
    pickle_fallback: bool = False


class CheckpointerKeys(Keys):
    ttl: CheckpointTtlKeys | None = None
    serde: SerdeKeys | None = None
    path: str | None = None


class AuthCacheKeys(Keys):
    cache_keys: tuple[str, ...] = ()
    ttl_seconds: Annotated[float, Field(gt=0)] | None = None
    max_size: Annotated[int, Field(ge=1)] | None = None


class AuthKeys(Keys):
    path: str | None = None
    disable_studio_auth: bool = False
    openapi: dict[str, Any] | None = None
    cache: AuthCacheKeys | None = None


class PathKeys(Keys):
    """An object that is only a path: `encryption`, `priority`."""

    path: Text


class CorsKeys(Keys):
    """`http.cors`: replaces the default wholly, so what is left out is not allowed."""

    allow_origins: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ("GET",)
    allow_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_origin_regex: Annotated[str, AfterValidator(compiles)] | None = None
    expose_headers: tuple[str, ...] = ()
    max_age: Annotated[int, Field(ge=0)] = 600


class HeaderKeys(Keys):
    """Which request headers: patterns with `*`, `excludes` win."""

    includes: tuple[Text, ...] = ()
    excludes: tuple[Text, ...] = ()


class HttpKeys(Keys):
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


class WebhookUrlKeys(Keys):
    require_https: bool = False
    allowed_domains: tuple[str, ...] | None = None
    allowed_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] | None = None
    max_url_length: Annotated[int, Field(ge=1)] | None = None
    disable_loopback: bool = True


class WebhookKeys(Keys):
    url: WebhookUrlKeys = WebhookUrlKeys()
    headers: dict[str, str] = Field(default_factory=dict)
    env_prefix: str = "LG_WEBHOOK_"


class SourceKeys(Keys):
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


class ProjectKeys(Keys):
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
    python_version: Annotated[str, AfterValidator(runs_here)] | None = None
    node_version: Annotated[str, BeforeValidator(recent_node)] | None = None
    api_version: Text | None = None
    base_image: Text | None = None
    image_distro: Literal["debian", "wolfi", "bookworm"] | None = None
    dockerfile_lines: tuple[str, ...] = ()
    pip_config_file: str | None = None
    pip_installer: Literal["auto", "pip", "uv"] | None = None
    keep_pkg_tools: bool | tuple[Literal["pip", "setuptools", "wheel"], ...] | None = None
    source: SourceKeys | None = None
