"""The secrets of `waystation.webhooks.secrets`: those that tenants have of their own, by names of variables."""

from __future__ import annotations

from collections.abc import Mapping

from waystation.catalog.keys_own import OwnWebhookKeys
from waystation.errors import ConfigError


def tenant_secrets(keys: OwnWebhookKeys, environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What the webhooks of each of these tenants are signed with.

    Raises:
        ConfigError: a variable is missing or empty.
    """
    return {tenant: tuple(_value(tenant, name, environ) for name in names) for tenant, names in keys.secrets.items()}


def _value(tenant: str, name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if not value:
        raise ConfigError(f"waystation.webhooks.secrets.{tenant}: {name} is not set in the environment")
    return value
