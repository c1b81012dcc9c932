"""Tokens of an identity provider: JSON Web Tokens, and whom they stand for by their claims."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import jwt

from waystation.auth.cache import Remembered
from waystation.auth.gate import Identity
from waystation.auth.principal import DEFAULT_TENANT, is_tenant_id
from waystation.auth.roles import Role
from waystation.errors import Forbidden, Unauthorized

ASYMMETRIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
SYMMETRIC: Final = ("HS256", "HS384", "HS512")

BELIEVED_S: Final = 10.0
"""How long a token that was good is not looked at again: a key that its provider withdraws is refused after this."""

_REMEMBERED = 10_000
_LONGEST = 16 * 1024
_CHALLENGE = {"WWW-Authenticate": 'Bearer error="invalid_token"'}

log = logging.getLogger(__name__)


class SigningKeys(Protocol):
    """Has the keys that tokens are signed with."""

    async def key_for(self, key_id: str | None, algorithm: str) -> Any:
        """What `jwt.decode` takes as key. Raises Unauthorized: no such key. Unavailable: the keys cannot be had."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """Which claims say what. A dot leads into an object: `realm_access.roles`."""

    identity: str = "sub"
    tenant: str | None = None
    roles: str | None = None
    permissions: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRules:
    """Which tokens are taken. `role_names` gives the roles of ours for what stands in the roles' claim; a token in
    which none of them stands has `default_role`, or is refused without one."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    leeway_s: float = 30.0
    claims: Claims = Claims()
    role_names: Mapping[str, Role] = field(default_factory=dict[str, Role])
    default_role: Role | None = None


class Tokens:
    """Verifies tokens. On the API's loop."""

    def __init__(self, rules: TokenRules, keys: SigningKeys) -> None:
        self._rules = rules
        self._keys = keys
        self._good = Remembered[bytes, Identity](ttl_s=BELIEVED_S, max_size=_REMEMBERED)

    async def verify(self, credential: str) -> Identity:
        """Whom a token stands for.

        Raises:
            Unauthorized: it is no token, or one that is not (or no longer) good here; why is logged, not told.
            Forbidden: it is good, and gives its bearer no tenant or no role.
            Unavailable: the provider's keys cannot be had.
        """
        if len(credential) > _LONGEST:
            raise _not_good()
        digest = hashlib.sha256(credential.encode("utf-8", "replace")).digest()
        if (known := self._good.get(digest)) is not None:
            return known
        claims = await self._decoded(credential)
        found = self._identity(claims)
        self._good.keep(digest, found, ttl_s=claims["exp"] + self._rules.leeway_s - time.time())
        return found

    async def _decoded(self, credential: str) -> dict[str, Any]:
        rules = self._rules
        try:
            header = jwt.get_unverified_header(credential)
            algorithm = header.get("alg")
            if algorithm not in rules.algorithms:  # `none` never is
                raise jwt.InvalidAlgorithmError(f"the algorithm {algorithm!r} is not allowed")
            key = await self._keys.key_for(header.get("kid"), algorithm)
            claims: dict[str, Any] = jwt.decode(
                credential,
                key,
                algorithms=[algorithm],
                audience=list(rules.audience),
                issuer=rules.issuer,
                leeway=rules.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            log.info("A token was refused", extra={"reason": f"{type(error).__name__}: {str(error)[:200]}"})
            raise _not_good() from None
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        named = self._rules.claims
        identity = _claim(claims, named.identity)
        if not isinstance(identity, str) or not identity:
            raise _not_good()
        tenant_id = DEFAULT_TENANT if named.tenant is None else _claim(claims, named.tenant)
        if not isinstance(tenant_id, str) or not is_tenant_id(tenant_id):
            raise Forbidden("The token gives its bearer no tenant")
        permissions = [f"role:{role}" for role in self._roles(claims)]
        if named.permissions is not None:
            # What a provider puts there never makes a role of ours.
            permissions += [p for p in _texts(_claim(claims, named.permissions)) if not p.startswith("role:")]
        return Identity(tenant_id, identity, tuple(permissions), {**claims, "tenant_id": tenant_id})

    def _roles(self, claims: Mapping[str, Any]) -> Sequence[Role]:
        rules = self._rules
        given = [] if rules.claims.roles is None else _texts(_claim(claims, rules.claims.roles))
        found: list[Role] = list(dict.fromkeys(rules.role_names[n] for n in given if n in rules.role_names))
        if not found and rules.default_role is None:
            raise Forbidden("The token gives its bearer no role")
        return found if found or rules.default_role is None else [rules.default_role]


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    if path in claims:  # names such as https://example.com/tenant have dots of their own
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        found = cast("Mapping[str, Any]", found).get(step) if isinstance(found, Mapping) else None
    return found


def _texts(value: Any) -> list[str]:
    """A list of texts, or one text with spaces or commas between, as `scope` has it."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [one for one in cast("list[Any]", value) if isinstance(one, str)] if isinstance(value, list) else []


def _not_good() -> Unauthorized:
    return Unauthorized("The token is not valid", headers=_CHALLENGE)
