"""Kinds of values that settings have: each turns a variable's text into its value, or says what was expected."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, BeforeValidator, Field


@dataclass(frozen=True, slots=True)
class Env:
    """Where a setting comes from: the first of `names` that is set to something wins."""

    names: tuple[str, ...]
    unit: str = ""
    secret: bool = False


def env(*names: str, unit: str = "", secret: bool = False) -> Env:
    return Env(names, unit, secret)


def _json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parsed = cast(object, json.loads(value))
    except ValueError as e:
        raise ValueError(f"should be a JSON object ({e})") from None
    if not isinstance(parsed, dict):
        raise ValueError("should be a JSON object")
    return cast(object, parsed)


def _comma_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _postgres_uri(value: str) -> str:
    if not value.startswith(("postgres://", "postgresql://")):
        raise ValueError("should begin with postgres:// or postgresql://")
    return value


def _redis_uri(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("should begin with redis://, rediss:// or unix://")
    return value


def _url_prefix(value: str) -> str:
    if not value.startswith("/") or value.endswith("/"):
        raise ValueError('should begin with "/" and not end with it, such as /api')
    return value


Redaction = Literal["secret", "email", "iban", "credit_card", "ip", "phone"]


def _redactions(value: object) -> object:
    return get_args(Redaction) if value == "all" else _comma_list(value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        try:
            ipaddress.ip_network(text)
        except ValueError as e:
            raise ValueError(f"{e}; expected networks such as 10.0.0.0/8") from None
    return value


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("should begin with http:// or https://")
    return value.rstrip("/")


PostgresUri = Annotated[str, AfterValidator(_postgres_uri)]
RedisUri = Annotated[str, AfterValidator(_redis_uri)]


def _aes_key(value: str) -> str:
    if len(value.encode()) not in (16, 24, 32):
        raise ValueError("should be 16, 24 or 32 bytes long")
    return value


def _key_ring(value: object) -> object:
    """`id:base64,...` as ids and keys."""
    if not isinstance(value, str):
        return value
    ring: dict[str, bytes] = {}
    for part in (part.strip() for part in value.split(",")):
        key_id, colon, encoded = part.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise ValueError(f"the key {key_id[:40]!r} should be base64") from None
        if not colon or not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", key_id):
            raise ValueError("should be id:base64,... with ids of letters, digits, dots, dashes and underscores")
        if len(key) not in (16, 24, 32):
            raise ValueError(f"the key {key_id!r} should be 16, 24 or 32 bytes, and is {len(key)}")
        if key_id in ring:
            raise ValueError(f"the key {key_id!r} is there twice")
        ring[key_id] = key
    return ring


AesKey = Annotated[str, AfterValidator(_aes_key)]
KeyRing = Annotated[dict[str, bytes], BeforeValidator(_key_ring)]
UrlPrefix = Annotated[str, AfterValidator(_url_prefix)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object)]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_comma_list)]
LogRedactions = Annotated[tuple[Redaction, ...], BeforeValidator(_redactions)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_comma_list), AfterValidator(_networks)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
