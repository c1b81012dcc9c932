"""The gate of a process, as the project and the settings describe it: whose credentials are taken, and by what rules.

What is wrong here stops the start; nobody finds out later that a door was left open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from langgraph_sdk import Auth
from pydantic import ValidationError

from waystation.auth import Gate
from waystation.auth.api_keys import ApiKeys
from waystation.auth.cache import HandlerCache
from waystation.auth.handlers import Handlers
from waystation.auth.signing_keys import KeySet, SharedSecret
from waystation.auth.tokens import SYMMETRIC, Claims, TokenRules, Tokens
from waystation.catalog import Project
from waystation.catalog.factories import in_thread
from waystation.catalog.importing import Importer
from waystation.catalog.keys import AuthCacheKeys
from waystation.catalog.keys_own import JwtKeys, OwnAuthKeys
from waystation.catalog.spec import parse_spec
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation.services.graph_host import GraphHost, GraphSide
from waystation.services.resources import Services
from waystation.services.tenants import Newcomers
from waystation_db.pool import Database

T = TypeVar("T")

CACHED_S = 60.0
CACHED_USERS = 1000
"""What `auth.cache` of a project means where it does not say."""


async def load_auth(project: Project) -> Auth | None:
    """The `Auth` object of `auth.path`; runs the user's module, in a thread. Belongs on the graph loop.

    Raises:
        ConfigError: it cannot be loaded, or is something else.
    """
    if project.auth is None or project.auth.path is None:
        return None
    spec = parse_spec("auth.path", project.auth.path, root=project.root)
    importer = Importer(project.root, project.folders)

    def load() -> object:
        importer.extend_path()
        return importer.load(spec, what="auth.path")

    with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
        found = await in_thread(executor, load)
    if not isinstance(found, Auth):
        raise ConfigError(f"auth.path is {spec.text!r}: expected a langgraph_sdk.Auth, found a {type(found).__name__}")
    return found


def credentials(services: Services) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """What the OpenAPI document says of credentials: security schemes, and the alternatives that are asked for.

    `auth.openapi` of the project as it is; else what `waystation.auth` takes.
    """
    told = services.project.auth.openapi if services.project.auth else None
    if told is not None:
        components: Mapping[str, Any] = told.get("components") or {}
        declared: dict[str, Any] = told.get("securitySchemes") or components.get("securitySchemes") or {}
        return declared, told.get("security") or [{name: []} for name in declared]
    own, schemes = own_auth(services.settings, services.project), dict[str, Any]()
    if own.api_keys:
        schemes["ApiKey"] = {"type": "apiKey", "in": "header", "name": "x-api-key"}
    if own.jwt is not None or own.api_keys:
        schemes["Bearer"] = {"type": "http", "scheme": "bearer"}
    return schemes, [{name: []} for name in schemes]


async def open_gate(settings: Settings, project: Project, db: Database, host: GraphHost) -> Gate | None:
    """The gate; None for a project without any auth. On the API's loop.

    Raises:
        ConfigError: what is configured leaves nobody in, contradicts itself, or cannot be used.
    """
    own = own_auth(settings, project)
    auth = host.side.auth
    handlers = None if auth is None else Handlers(auth, _there(host), deny_by_default=own.default == "deny")
    authenticates = handlers is not None and handlers.authenticates
    if own.jwt is not None and authenticates:
        raise ConfigError("waystation.auth.jwt and the authenticate handler of auth.path exclude each other")
    if handlers is None and own.default == "deny":
        raise ConfigError('waystation.auth.default is "deny", and there are no handlers that could allow anything')
    if not (authenticates or own.api_keys or own.jwt):
        if handlers is not None:
            raise ConfigError("auth.path has no authenticate handler, and waystation.auth names no other credentials")
        return None
    keys = project.auth
    return Gate(
        max_body_bytes=settings.max_body_bytes,
        handlers=handlers,
        cache=_cache(keys.cache) if keys and keys.cache else None,
        keys=ApiKeys(db, pepper=settings.key_pepper) if own.api_keys else None,
        tokens=await _tokens(own.jwt, settings, project) if own.jwt else None,
        tenant_member=own.tenant,
        welcome=Newcomers(db, project).welcome,
        studio=handlers is not None and not (keys and keys.disable_studio_auth),
        studio_from_here=settings.studio_auth == "local",
    )


def own_auth(settings: Settings, project: Project) -> OwnAuthKeys:
    """`waystation.auth` of the project, or what WAYSTATION_AUTH says instead.

    Raises:
        ConfigError: WAYSTATION_AUTH has a wrong member.
    """
    if settings.auth is None:
        return project.waystation.auth or OwnAuthKeys()
    try:
        return OwnAuthKeys.model_validate(settings.auth)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ConfigError(f"WAYSTATION_AUTH: {place}: {first['msg']}") from None


def _there(host: GraphHost) -> RunOnGraphLoop:
    return RunOnGraphLoop(host)


class RunOnGraphLoop:
    """Runs handlers where user code runs."""

    def __init__(self, host: GraphHost) -> None:
        self._host = host

    async def __call__(self, work: Callable[[], Awaitable[T]], /) -> T:
        async def there(_side: GraphSide) -> T:
            return await work()

        return await self._host.call(there)


def _cache(keys: AuthCacheKeys) -> HandlerCache:
    if not keys.cache_keys:
        raise ConfigError("auth.cache.cache_keys is empty: expected names of request headers")
    return HandlerCache(keys.cache_keys, ttl_s=keys.ttl_seconds or CACHED_S, max_size=keys.max_size or CACHED_USERS)


async def _tokens(keys: JwtKeys, settings: Settings, project: Project) -> Tokens:
    shared = [name for name in keys.algorithms if name in SYMMETRIC]
    if shared and (keys.jwks is not None or len(shared) < len(keys.algorithms)):
        raise ConfigError(f"waystation.auth.jwt.algorithms: {shared[0]} goes with WAYSTATION_JWT_SECRET alone")
    rules = TokenRules(
        issuer=keys.issuer,
        audience=keys.audience,
        algorithms=keys.algorithms,
        leeway_s=keys.leeway_s,
        claims=Claims(**keys.claims.model_dump()),
        role_names=keys.roles,
        default_role=keys.default_role or (None if keys.claims.roles else "user"),
    )
    if shared:
        if settings.jwt_secret is None:
            raise ConfigError(f"waystation.auth.jwt.algorithms has {shared[0]}, and WAYSTATION_JWT_SECRET is not set")
        return Tokens(rules, SharedSecret(settings.jwt_secret))
    if keys.jwks is None:
        raise ConfigError("waystation.auth.jwt.jwks is missing: expected an https:// address or a file")
    found = KeySet.at(keys.jwks, root=project.root)
    await found.open()
    return Tokens(rules, found)
