"""One webhook on its way to receivers that misbehave, and to addresses where it must not go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from receivers import (
    Behaviour,
    drips_headers,
    hangs_up,
    never_answers,
    never_ends,
    receiver,
    says,
)
from waystation.runs.public_addresses import AddressRules
from waystation.worker.webhook_post import Letter, Postman, secret_bytes

pytestmark = pytest.mark.anyio

LETTER = Letter("11111111-1111-4111-8111-111111111111", 1_700_000_000, b'{"a": 1}')


@asynccontextmanager
async def postman(*, loopback: bool = True, timeout_s: float = 60.0, **more: Any) -> AsyncGenerator[Postman]:
    it = Postman(rules=AddressRules(loopback=loopback), timeout_s=timeout_s, **more)
    try:
        yield it
    finally:
        await it.close()


def answering(found: Any) -> Any:
    """A resolver that knows one answer."""

    def lookup(*_: Any, **__: Any) -> Any:
        return found

    return lookup


async def test_it_is_signed_with_every_secret() -> None:
    secrets = [secret_bytes("whsec_" + base64.b64encode(b"k" * 24).decode()), secret_bytes("plain")]
    assert secrets == [b"k" * 24, b"plain"]
    async with receiver() as it, postman(headers=[("x-own", "1")]) as sender:
        assert (await sender.send(it.url, replace(LETTER, secrets=tuple(secrets)))).is_taken
        [got] = it.got
    assert got.raw == LETTER.body
    assert (got.headers["x-own"], got.headers["content-type"]) == ("1", "application/json")
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.raw
    expected = ["v1," + base64.b64encode(hmac.new(s, signed, hashlib.sha256).digest()).decode() for s in secrets]
    assert got.headers["webhook-signature"].split() == expected


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(never_answers, None), (drips_headers, None), (hangs_up, None), (says(500), 500), (says(404), 404)],
)
async def test_a_receiver_that_does_not_take_it_costs_no_more_than_the_time_limit(
    behaviour: Behaviour, status: int | None
) -> None:
    limit_s = 0.5 if status is None else 60.0
    async with receiver(behaviour) as it, postman(timeout_s=limit_s) as sender, asyncio.timeout(60):
        answer = await sender.send(it.url, LETTER)
    assert (answer.is_taken, answer.status, answer.hopeless) == (False, status, False)
    assert answer.error


async def test_an_answer_without_end_is_not_read() -> None:
    async with receiver(never_ends) as it, postman() as sender:
        assert (await sender.send(it.url, LETTER)).is_taken


async def test_redirects_are_not_followed() -> None:
    async with receiver() as target, postman() as sender:
        async with receiver(says(307, f"location: {target.url}")) as it:
            answer = await sender.send(it.url, LETTER)
        assert (answer.status, answer.is_taken, target.got) == (307, False, [])


async def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    date = "date: Sat, 21 Nov 2026 10:00:00 GMT"
    given = {"retry-after: 30": 30.0, "retry-after: Sat, 21 Nov 2026 10:02:00 GMT": 120.0, "retry-after: soon": None}
    for header, expected in given.items():
        async with receiver(says(429, header, date)) as it, postman() as sender:
            assert (await sender.send(it.url, LETTER)).retry_after_s == expected


async def test_gone_is_for_good() -> None:
    async with receiver(says(410)) as it, postman() as sender:
        assert (await sender.send(it.url, LETTER)).hopeless


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "0.0.0.0", "[::]"])
async def test_this_machine_is_not_sent_to(host: str) -> None:
    async with receiver() as it, postman(loopback=False) as sender:
        answer = await sender.send(f"http://{host}:{it.port}/hook", LETTER)
        assert (answer.hopeless, answer.status, it.got) == (True, None, [])
        assert "not allowed" in (answer.error or "")


async def test_a_name_is_looked_up_once_and_the_address_that_was_checked_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "rebinding.example":
            asked.append(host)
            # A second answer would lead elsewhere.
            return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port, *args, **kwargs)
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    async with receiver() as it, postman() as sender:
        assert (await sender.send(f"http://rebinding.example:{it.port}/hook", LETTER)).is_taken
        assert it.got[0].headers["host"] == f"rebinding.example:{it.port}"
    assert asked == ["rebinding.example"]


async def test_a_name_that_leads_to_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", answering(addresses))
    async with receiver() as it, postman(loopback=False) as sender:
        answer = await sender.send(f"http://innocent.example:{it.port}/", LETTER)
        assert (answer.hopeless, it.got) == (True, [])


async def test_of_several_addresses_the_allowed_ones_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["10.0.0.1", "127.0.0.9", "127.0.0.1"]
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", answering(addresses))
    async with receiver() as it, postman() as sender:
        assert (await sender.send(f"http://many.example:{it.port}/", LETTER)).is_taken
        assert len(it.got) == 1


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy, receiver() as it:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with postman() as sender:
            assert (await sender.send(it.url, LETTER)).is_taken
        assert (len(it.got), proxy.got) == (1, [])


async def test_an_unknown_name_may_be_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with postman() as sender:
        answer = await sender.send("http://nowhere.example/", LETTER)
    assert (answer.is_taken, answer.hopeless) == (False, False)


async def test_a_name_server_that_does_not_answer_costs_no_more_than_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers_now = threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        answers_now.wait(90)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    async with postman(timeout_s=0.5) as sender:
        try:
            async with asyncio.timeout(30):  # one after the other they would take longer
                answers = await asyncio.gather(*(sender.send("http://slow.example/", LETTER) for _ in range(100)))
        finally:
            answers_now.set()
    assert not any(answer.is_taken for answer in answers)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()))
    (folder / "cert.pem").write_bytes(made.public_bytes(encoding))
    return folder / "cert.pem", folder / "key.pem"


async def test_over_tls_the_name_is_what_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path, "hooks.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    names: list[str | None] = []
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    tls.sni_callback = lambda _socket, name, _context: names.append(name)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(socket, "getaddrinfo", answering(addresses))
    async with server, postman() as sender:
        assert (await sender.send(f"https://hooks.example:{port}/x", LETTER)).is_taken
        other = await sender.send(f"https://other.example:{port}/x", LETTER)
    assert names == ["hooks.example", "other.example"]
    assert (other.is_taken, "certificate" in (other.error or "").lower()) == (False, True)
