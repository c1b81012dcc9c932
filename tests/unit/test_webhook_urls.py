"""Where webhooks may go: addresses in every spelling, and the rules of langgraph.json."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from pydantic import ValidationError

from waystation.catalog.keys import WebhookKeys, WebhookUrlKeys
from waystation.catalog.keys_own import OwnWebhookKeys
from waystation.catalog.webhook_headers import webhook_headers
from waystation.catalog.webhook_secrets import tenant_secrets
from waystation.errors import ConfigError, InvalidRequest
from waystation.runs.public_addresses import AddressRules, address_in, parse_networks
from waystation.runs.webhook_urls import check_webhook_url

NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9", "192.88.99.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "fec0::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "2001:0:0:0:0:0:f5ff:fffe"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def refused(url: str, *, rules: AddressRules | None = None, **keys: Any) -> str | None:
    """Why a URL is refused."""
    try:
        check_webhook_url(url, WebhookUrlKeys(**keys), rules=rules or AddressRules())
    except InvalidRequest as error:
        return error.message
    return None


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert AddressRules().refusal(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    assert refused(f"http://{host}/hook")


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not_refused(address: str) -> None:
    assert AddressRules().refusal(ipaddress.ip_address(address)) is None


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1%00", "127.0.0.1."),
        *("localhost", "LOCALHOST.", "me.localhost"),
    ],
)
def test_this_machine_is_refused_in_any_spelling(host: str) -> None:
    assert refused(f"http://{host}/hook")


def test_loopback_alone_can_be_allowed() -> None:
    rules = AddressRules(loopback=True)
    assert [refused(f"http://{host}/", rules=rules) for host in ("127.0.0.1", "[::1]", "localhost")] == [None] * 3
    assert refused("http://10.0.0.1/", rules=rules)
    assert refused("http://169.254.169.254/latest", rules=rules)


def test_a_private_network_can_be_allowed_by_the_operator() -> None:
    rules = AddressRules(networks=parse_networks(["10.1.0.0/16", "fd00::/8"]))
    assert refused("http://10.1.2.3/", rules=rules) is None
    assert refused("http://[fd00::5]/", rules=rules) is None
    assert refused("http://10.2.2.3/", rules=rules)
    assert rules.refusal(ipaddress.ip_address("::ffff:10.1.2.3")) is None


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://example.com/x",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "example.com/hook",
            "http://",
            "http:///x",
        ),
        *("http://exa mple.com/", "http://[::1", "https://example.com:0/", "https://example.com:99999/", "hook", " "),
        *("https://example.com/\n", "gopher://example.com/", "//example.com/x", "/hook", "\\\\example.com\\x"),
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    assert refused(url)


def test_the_rules_of_the_project_are_kept() -> None:
    assert refused("http://example.com/", require_https=True)
    assert refused("https://example.com/", require_https=True) is None
    assert refused("https://example.com/" + "x" * 100, max_url_length=100)
    assert refused("https://example.com/" + "x" * 9000)
    assert refused("https://example.com:8443/", allowed_ports=(443,))
    assert refused("https://example.com/", allowed_ports=(443,)) is None
    domains = ("hooks.example.com", "*.example.org")
    allowed = ["https://hooks.example.com/", "https://a.example.org/", "https://A.B.Example.org./"]
    others = [
        "https://example.com/",
        "https://example.org/",
        "https://xexample.org/",
        "https://a.example.org.evil.com/",
    ]
    assert [refused(url, allowed_domains=domains) for url in allowed] == [None] * 3
    assert all(refused(url, allowed_domains=domains) for url in others)
    assert refused("https://hooks.example.com@evil.com/", allowed_domains=domains)


def test_a_path_on_the_server_needs_leave() -> None:
    rules = AddressRules(loopback=True)
    assert refused("/hooks/done?x=1", rules=rules) is None
    assert refused("//evil.com/x", rules=rules)
    assert refused("/\\evil.com", rules=rules)


def test_names_are_no_addresses() -> None:
    assert [address_in(name) for name in ("example.com", "1e100.net", "a1", "", "999.999.999.999")] == [None] * 5


def headers(**given: str) -> tuple[tuple[str, str], ...]:
    return webhook_headers(WebhookKeys(headers=given), {"LG_WEBHOOK_TOKEN": "tok", "SECRET": "s"})


def test_headers_are_filled_from_the_environment() -> None:
    assert headers(**{"x-a": "1", "authorization": "Bearer ${{ env.LG_WEBHOOK_TOKEN }}"}) == (
        ("x-a", "1"),
        ("authorization", "Bearer tok"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "${{ env.SECRET }}"),
        ("x", "${{ env.LG_WEBHOOK_MISSING }}"),
        ("x", "${{ secrets.TOKEN }}"),
        ("x", "a\r\nb: c"),
        ("host", "evil"),
        ("Content-Length", "5"),
        ("webhook-signature", "v1,x"),
        ("bad name", "x"),
    ],
)
def test_headers_that_cannot_be_stop_the_start(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"webhooks\.headers"):
        headers(**{name: value})


def test_secrets_of_tenants_are_read_by_the_names_of_variables() -> None:
    keys = OwnWebhookKeys.model_validate({"secrets": {"a": "ONE", "b": ["TWO", "ONE"]}})
    assert tenant_secrets(keys, {"ONE": "1", "TWO": "2"}) == {"a": ("1",), "b": ("2", "1")}


@pytest.mark.parametrize("environ", [{}, {"ONE": ""}])
def test_a_secret_that_is_not_there_stops_the_start(environ: dict[str, str]) -> None:
    keys = OwnWebhookKeys.model_validate({"secrets": {"a": "ONE"}})
    with pytest.raises(ConfigError, match=r"waystation\.webhooks\.secrets\.a: ONE is not set"):
        tenant_secrets(keys, environ)


@pytest.mark.parametrize("secrets", [{"a": []}, {"a": "not a name"}, {"": "ONE"}, {"a": ["A"] * 5}, {"a": 7}])
def test_what_names_no_variables_is_refused(secrets: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="secrets"):
        OwnWebhookKeys.model_validate({"secrets": secrets})
