"""The keys of an identity provider: a JWKS at an address or in a file, read again now and then, or a shared secret.

A token that names an unknown key makes us look again, at most every LOOK_AGAIN_S: that is how rotation is noticed. When
the provider does not answer, the keys that are known go on being used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from waystation.errors import ConfigError, Unauthorized, Unavailable

FRESH_S: Final = 300.0
LOOK_AGAIN_S: Final = 5.0
FETCH_S: Final = 5.0
MAX_BYTES: Final = 1024 * 1024

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

log = logging.getLogger(__name__)

Load = Callable[[], Awaitable[bytes]]


class SharedSecret:
    """One secret for signing and verifying, as some providers have it."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def key_for(self, key_id: str | None, algorithm: str) -> Any:
        return self._secret


class KeySet:
    """A JWKS. Belongs to the API's loop; `open` is awaited first."""

    def __init__(self, load: Load, *, where: str) -> None:
        self._load = load
        self._where = where
        self._keys: list[jwt.PyJWK] = []
        self._loaded_at = self._tried_at = float("-inf")
        self._turn = asyncio.Lock()

    @classmethod
    def at(cls, address: str, *, root: Path) -> KeySet:
        """A JWKS at a URL, or in a file below `root`.

        Raises:
            ConfigError: an address that is not https, unless it is of this machine.
        """
        if "://" not in address:
            return cls(_from_file(root / address), where=address)
        url = urlsplit(address)
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ConfigError(f"waystation.auth.jwt.jwks is {address!r}: expected an https:// address or a file")
        return cls(_from_url(address), where=address)

    async def open(self) -> None:
        """Look for the first time. A provider that does not answer may do so later.

        Raises:
            ConfigError: what is there is no JWKS, or has no key that can be used.
        """
        try:
            self._keys, self._loaded_at = _parsed(await self._load()), monotonic()
        except httpx.HTTPStatusError as error:
            raise ConfigError(f"waystation.auth.jwt.jwks: {self._where} answers {error.response.status_code}") from None
        except httpx.HTTPError as error:
            log.warning("The keys of the identity provider cannot be had yet", extra={"error": type(error).__name__})
        except (OSError, ValueError) as error:
            raise ConfigError(f"waystation.auth.jwt.jwks: {self._where} cannot be used: {error}") from None

    async def key_for(self, key_id: str | None, algorithm: str) -> Any:
        """The key that a token names.

        Raises:
            Unauthorized: there is none.
            Unavailable: there are no keys at all, because the provider does not answer.
        """
        now = monotonic()
        if now - self._loaded_at > FRESH_S:
            await self._reload(LOOK_AGAIN_S)
        found = self._find(key_id, algorithm)
        if found is None:
            await self._reload(LOOK_AGAIN_S)
            found = self._find(key_id, algorithm)
        if found is not None:
            return found
        if not self._keys:
            raise Unavailable("The identity provider does not answer", headers={"Retry-After": "5"})
        raise Unauthorized("The token is not valid", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    def _find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        fitting = [key for key in self._keys if _fits(key, algorithm)]
        if key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == key_id), None)

    async def _reload(self, at_most_every_s: float) -> None:
        async with self._turn:
            if monotonic() - self._tried_at < at_most_every_s:
                return
            self._tried_at = monotonic()
            try:
                self._keys, self._loaded_at = _parsed(await self._load()), monotonic()
            except (httpx.HTTPError, OSError, ValueError) as error:
                log.warning(
                    "The keys of the identity provider cannot be read; those known go on being used", exc_info=error
                )


def _fits(key: jwt.PyJWK, algorithm: str) -> bool:
    """A key is used for what it was made for and nothing else."""
    data: dict[str, Any] = key._jwk_data  # pyright: ignore[reportPrivateUsage]  # PyJWT shows only parts of it
    if data.get("use", "sig") != "sig" or data.get("alg", algorithm) != algorithm:
        return False
    return data.get("kty") == _KEY_TYPES[algorithm[:2]]


def _parsed(raw: bytes) -> list[jwt.PyJWK]:
    document = cast("object", orjson.loads(raw))
    members = cast("dict[str, object]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError("it is no JWKS: expected an object with the member keys")
    found: list[jwt.PyJWK] = []
    for member in cast("list[Any]", members):
        # A shared secret among public keys would let everybody sign who can read them.
        if not isinstance(member, dict) or cast("dict[str, Any]", member).get("kty") == "oct":
            continue
        try:
            found.append(jwt.PyJWK.from_dict(cast("dict[str, Any]", member)))
        except jwt.PyJWTError as error:
            log.warning("A key of the identity provider is passed over", extra={"error": str(error)[:200]})
    if not found:
        raise ValueError("it has no key that can be used")
    return found


def _from_file(path: Path) -> Load:
    async def load() -> bytes:
        return await asyncio.to_thread(path.read_bytes)

    return load


def _from_url(url: str) -> Load:
    through_proxies = urlsplit(url).hostname not in _LOOPBACK

    async def load() -> bytes:
        made = httpx.AsyncClient(timeout=FETCH_S, trust_env=through_proxies)
        async with made as client, client.stream("GET", url) as answer:
            answer.raise_for_status()
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            return bytes(body)

    return load
