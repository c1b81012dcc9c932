"""What a client may name as webhook: the rules of `webhooks.url` in langgraph.json, checked when a run is created.

A name is not looked up here. What it leads to is checked where it counts, when something is sent to it.
"""

from __future__ import annotations

import re
from typing import Final

import httpx

from waystation.catalog.keys import WebhookUrlKeys
from waystation.errors import InvalidRequest
from waystation.runs.public_addresses import AddressRules, address_in, parse_networks
from waystation.services import Services

MAX_LENGTH: Final = 8192
_LOCAL: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?")
_PORTS: Final = {"http": 80, "https": 443}


def webhook_of(services: Services, url: str) -> str | None:
    """The webhook that a run keeps; None where none was sent, or the project sends none (`http.disable_webhooks`).

    Raises:
        InvalidRequest: the URL is not allowed.
    """
    if not url:
        return None
    keys = services.project.webhooks
    check_webhook_url(url, keys.url if keys else WebhookUrlKeys(), rules=address_rules(services))
    return url if sends_webhooks(services) else None


def sends_webhooks(services: Services) -> bool:
    """Whether the project has webhooks."""
    http = services.project.http
    return http is None or not http.disable_webhooks


def address_rules(services: Services) -> AddressRules:
    """Which addresses the project and the operator allow."""
    keys = services.project.webhooks
    return AddressRules(
        loopback=keys is not None and not keys.url.disable_loopback,
        networks=parse_networks(services.settings.webhook_networks or ()),
    )


def check_webhook_url(url: str, keys: WebhookUrlKeys, *, rules: AddressRules) -> None:
    """Whether a run may have this webhook.

    Raises:
        InvalidRequest: it may not; the text says which rule.
    """
    longest = min(keys.max_url_length or MAX_LENGTH, MAX_LENGTH)
    if len(url) > longest:
        raise InvalidRequest(f"webhook: longer than {longest} characters")
    if url.startswith("/"):
        _check_path(url, rules)
        return
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise InvalidRequest("webhook: not a URL") from None
    if parsed.scheme not in _PORTS:
        raise InvalidRequest(f"webhook: the scheme {parsed.scheme[:20]!r} is not allowed; use https or http")
    if keys.require_https and parsed.scheme != "https":
        raise InvalidRequest("webhook: must be an https URL")
    _check_host(parsed.raw_host.decode("ascii"), keys, rules)
    _check_port(parsed, keys)


def _check_path(path: str, rules: AddressRules) -> None:
    if not rules.loopback:
        raise InvalidRequest("webhook: a path on this server is not allowed (webhooks.url.disable_loopback)")
    if path.startswith("//") or "\\" in path or not path.isprintable() or "#" in path:
        raise InvalidRequest("webhook: not a path on this server")


def _check_host(host: str, keys: WebhookUrlKeys, rules: AddressRules) -> None:
    name = host.lower().rstrip(".")
    if not name:
        raise InvalidRequest("webhook: names no host")
    address = address_in(name)
    if address is None and not _NAME.fullmatch(name):
        raise InvalidRequest("webhook: the host is no name")
    if address is not None and (why := rules.refusal(address)):
        raise InvalidRequest(f"webhook: the host is {why}, which is not allowed")
    if (name in _LOCAL or name.endswith(".localhost")) and not rules.loopback:
        raise InvalidRequest("webhook: the host is this machine, which is not allowed (webhooks.url.disable_loopback)")
    if keys.allowed_domains is not None and not any(_matches(name, domain) for domain in keys.allowed_domains):
        raise InvalidRequest("webhook: the host is not among webhooks.url.allowed_domains")


def _matches(name: str, domain: str) -> bool:
    wanted = domain.lower().rstrip(".")
    return name.endswith(wanted[1:]) and len(name) >= len(wanted) if wanted.startswith("*.") else name == wanted


def _check_port(url: httpx.URL, keys: WebhookUrlKeys) -> None:
    port = url.port if url.port is not None else _PORTS[url.scheme]
    if not 0 < port < 65536:
        raise InvalidRequest("webhook: no such port")
    if keys.allowed_ports is not None and port not in keys.allowed_ports:
        raise InvalidRequest("webhook: the port is not among webhooks.url.allowed_ports")
