"""The headers of `webhooks.headers`, with `${{ env.NAME }}` filled in. Wrong ones stop the start."""

from __future__ import annotations

import re
from collections.abc import Mapping

from waystation.catalog.keys import WebhookKeys
from waystation.errors import ConfigError

_PLACE = re.compile(r"\$\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    {
        *("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "te"),
        *("webhook-id", "webhook-timestamp", "webhook-signature", "upgrade", "expect", "trailer"),
    }
)


def webhook_headers(keys: WebhookKeys | None, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Names and values of the headers that every webhook gets.

    Raises:
        ConfigError: a variable is missing or may not be used, or something is no header.
    """
    if keys is None:
        return ()
    return tuple((_name(name), _value(name, value, keys.env_prefix, environ)) for name, value in keys.headers.items())


def _name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.lower() in _OURS:
        raise ConfigError(f"webhooks.headers: {name!r} cannot be set")
    return name


def _value(name: str, template: str, prefix: str, environ: Mapping[str, str]) -> str:
    def fill(place: re.Match[str]) -> str:
        variable = place[1]
        if not variable.startswith(prefix):
            raise ConfigError(f"webhooks.headers.{name}: env.{variable} does not begin with {prefix} (env_prefix)")
        if variable not in environ:
            raise ConfigError(f"webhooks.headers.{name}: {variable} is not set in the environment")
        return environ[variable]

    value = _PLACE.sub(fill, template)
    if "${{" in _PLACE.sub("", template):
        raise ConfigError(f"webhooks.headers.{name} is {template!r}: expected a text, with ${{{{ env.NAME }}}} in it")
    if not value.isprintable() or not value.isascii():
        raise ConfigError(f"webhooks.headers.{name}: the value has characters that a header cannot have")
    return value.strip()
