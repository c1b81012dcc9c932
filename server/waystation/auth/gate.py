"""Every request passes here once: credentials in, a principal out.

a key of ours ─────────▶ ApiKeys         (`x-api-key`, or as bearer token)
the Studio's scheme ───▶ a developer     (on this machine in development, else with an admin's key)
anything else ─────────▶ the project's `authenticate` handler, or the tokens of an identity provider
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.authentication import AuthCredentials
from starlette.types import Receive, Scope

from waystation.auth.arrival import Arrival
from waystation.auth.cache import HandlerCache
from waystation.auth.handlers import Handlers
from waystation.auth.principal import ACTING_AS, ANONYMOUS, DEFAULT_TENANT, Both, Principal, Rules, is_tenant_id
from waystation.auth.roles import RoleRules, roles_of
from waystation.auth.user import User, studio_user
from waystation.errors import Forbidden, Unauthorized

CALLER: Final = "waystation.caller"
STUDIO_USER: Final = "langgraph-studio-user"
KEY_PREFIX: Final = "wsk_"

_STUDIO_SCHEME = "langsmith"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a credential of ours stands for. `permissions` has the roles, as `role:admin`."""

    tenant_id: str
    identity: str
    permissions: tuple[str, ...]
    members: Mapping[str, Any]


class Verifier(Protocol):
    """Knows whom a key or a token stands for."""

    async def verify(self, credential: str) -> Identity:
        """Raises Unauthorized, Forbidden, or DatabaseUnavailable and Unavailable where that cannot be found out."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a process asks of whoever comes.

    `tenant_member` names the member of an authenticated user that is its tenant; `welcome` is told of that tenant.
    `studio_from_here`: the Studio's developers need no key where they sit at this machine.
    """

    max_body_bytes: int
    handlers: Handlers | None = None
    cache: HandlerCache | None = None
    keys: Verifier | None = None
    tokens: Verifier | None = None
    tenant_member: str | None = None
    welcome: Callable[[str], Awaitable[None]] | None = None
    studio: bool = False
    studio_from_here: bool = False

    async def authenticate(self, scope: Scope, receive: Receive) -> Receive:
        """Find out who comes with an `http` or `websocket` scope and keep it there; returns the `receive` to go on
        with. On the API's loop.

        Raises:
            Unauthorized: no credentials, or none that are any good.
            Forbidden, Refused, Unavailable: as whoever was asked says.
        """
        arrival = Arrival(scope, receive, max_body_bytes=self.max_body_bytes)
        caller = await self._caller(arrival)
        if self.welcome is not None and caller.tenant_id != DEFAULT_TENANT:
            await self.welcome(caller.tenant_id)
        scope[CALLER] = caller
        ACTING_AS.set(caller)
        scope["user"] = caller.seen or caller.user
        scope["auth"] = AuthCredentials(list(caller.permissions))
        return arrival.receive()

    async def _caller(self, arrival: Arrival) -> Principal:
        key = arrival.header(b"x-api-key") or arrival.bearer or ""
        known = await self.keys.verify(key) if self.keys is not None and key.startswith(KEY_PREFIX) else None
        if self.studio and arrival.header(b"x-auth-scheme") == _STUDIO_SCHEME:
            return self._developer(arrival, known)
        if known is not None:
            return self._built_in(known)
        if self.handlers is not None and self.handlers.authenticates:
            return await self._authenticated(arrival, self.handlers)
        if self.tokens is not None and arrival.bearer:
            return self._built_in(await self.tokens.verify(arrival.bearer))
        raise Unauthorized("Credentials are missing: send `x-api-key` or `Authorization: Bearer`", headers=_CHALLENGE)

    def _developer(self, arrival: Arrival, known: Identity | None) -> Principal:
        if known is not None and "admin" in roles_of(known.permissions):
            tenant_id = known.tenant_id
        elif known is None and self.studio_from_here and arrival.is_from_here:
            tenant_id = DEFAULT_TENANT
        else:
            raise Unauthorized("The Studio needs an API key with the role admin", headers=_CHALLENGE)
        user = studio_user(STUDIO_USER)
        return Principal(tenant_id, user.identity, tuple(user.permissions), user, self.handlers, is_studio=True)

    def _built_in(self, found: Identity) -> Principal:
        own = {"identity": found.identity, "is_authenticated": True, "display_name": found.identity}
        user = User({**found.members, **own, "permissions": list(found.permissions)}).as_json()
        rules: Rules = RoleRules()
        if self.handlers is not None and self.handlers.has_rules:
            rules = Both(rules, self.handlers)
        return Principal(found.tenant_id, found.identity, found.permissions, user, rules)

    async def _authenticated(self, arrival: Arrival, handlers: Handlers) -> Principal:
        user = self.cache.get(arrival) if self.cache else None
        if user is None:
            user = await handlers.authenticate(arrival)
            if self.cache:
                self.cache.keep(arrival, user)
        rules = handlers if handlers.has_rules else None
        tenant_id, stored = self._tenant_of(user), user.as_json()
        return Principal(tenant_id, stored.identity, tuple(stored.permissions), stored, rules, seen=user)

    def _tenant_of(self, user: User) -> str:
        if self.tenant_member is None:
            return DEFAULT_TENANT
        tenant_id = user.get(self.tenant_member)
        if not isinstance(tenant_id, str) or not is_tenant_id(tenant_id):
            raise Forbidden("The user belongs to no tenant")
        return tenant_id


def caller_of(scope: Scope) -> Principal:
    """Who a request comes from; ANONYMOUS where nobody was asked."""
    return scope.get(CALLER, ANONYMOUS)
