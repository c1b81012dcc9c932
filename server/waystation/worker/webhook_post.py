"""One webhook on its way: signed, to an address that was checked and is the one connected to, and never for long.

    name ──resolve──▶ addresses ──rules──▶ the allowed ones ──▶ connect to just that, the name for TLS and Host

No redirects, no proxies from the environment, and of the answer little more than the status is read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

import waystation
from waystation.runs.public_addresses import AddressRules, address_in

MOST_READ = 64 * 1024
"""Bytes of an answer that are read before the connection is closed. Nothing of them is kept."""

_USER_AGENT: Final = f"waystation/{waystation.__version__}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a try. Without `status` there was no answer; `hopeless`: another try would end the same way."""

    status: int | None
    error: str | None = None
    retry_after_s: float | None = None
    hopeless: bool = False

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent. `timestamp_s` is the database's clock. `secrets` are what it is signed with: several while one
    takes another's place."""

    delivery_id: str
    timestamp_s: int
    body: bytes
    secrets: tuple[bytes, ...] = field(default=(), repr=False)

    def headers(self) -> dict[str, str]:
        """Who it is, when it was sent and, with secrets, the signatures: those of the Standard Webhooks convention."""
        headers = {"webhook-id": self.delivery_id, "webhook-timestamp": str(self.timestamp_s)}
        if self.secrets:
            signed = f"{self.delivery_id}.{self.timestamp_s}.".encode() + self.body
            headers["webhook-signature"] = " ".join("v1," + _signature(secret, signed) for secret in self.secrets)
        return headers


def _signature(secret: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def secret_bytes(secret: str) -> bytes:
    """The key in a secret: `whsec_` and base64, or the text itself."""
    encoded = secret.removeprefix("whsec_")
    if encoded != secret:
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            pass
    return secret.encode()


class Refused(Exception):
    """No address of the host may be sent to."""


class Postman:
    """Sends letters. Has a client and threads for name resolution of its own; close it."""

    def __init__(
        self,
        *,
        rules: AddressRules,
        headers: Sequence[tuple[str, str]] = (),
        timeout_s: float = 10.0,
        resolvers: int = 8,
    ) -> None:
        self._rules = rules
        own = {"User-Agent": _USER_AGENT} if "user-agent" not in {name.lower() for name, _ in headers} else {}
        self._headers = {**own, **dict(headers)}
        self._timeout_s = timeout_s
        # The process's default executor is others'; a name server that does not answer would take its threads.
        self._threads = ThreadPoolExecutor(resolvers, thread_name_prefix="waystation-names")
        # Connections are not kept: two names on one address must not share one.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            verify=httpx.create_ssl_context(), trust_env=False, follow_redirects=False, timeout=timeout_s, limits=limits
        )

    async def close(self) -> None:
        await self._client.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, url: str, letter: Letter, *, base_url: str | None = None) -> Answer:
        """Try once. `base_url` is where this server is, for a URL that is a path on it. Never raises."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(url, letter, base_url)
        except TimeoutError:
            return Answer(None, f"no answer within {self._timeout_s:g} s")
        except Refused as error:
            return Answer(None, str(error), hopeless=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, ValueError) as error:
            return Answer(None, _told(error))

    async def _send(self, url: str, letter: Letter, base_url: str | None) -> Answer:
        if url.startswith("/"):
            if base_url is None:
                return Answer(None, "this process does not know where the API is (WAYSTATION_BASE_URL)")
            return await self._post(httpx.URL(base_url + url), letter, None)
        target = httpx.URL(url)
        last: Exception | None = None
        for address in await self._addresses(target):
            try:
                return await self._post(target, letter, address)
            except httpx.ConnectError as error:
                last = error
        raise last or Refused("the host has no address")

    async def _addresses(self, target: httpx.URL) -> list[str]:
        """Where the host is, as far as that is allowed.

        Raises:
            Refused: none of it is. OSError: the name is not known.
        """
        literal = address_in(target.host)
        if literal is not None:
            found = [str(literal)]
        else:
            found = await self._resolve(target.raw_host.decode("ascii"))
        refusals = {address: self._rules.refusal(ipaddress.ip_address(address)) for address in found}
        allowed = [address for address, why in refusals.items() if why is None]
        if not allowed:
            why = next(iter(refusals.values()), None) or "no address"
            raise Refused(f"the host leads to {why}, which is not allowed")
        return allowed

    async def _resolve(self, name: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found))

    async def _post(self, target: httpx.URL, letter: Letter, address: str | None) -> Answer:
        request = self._client.build_request(
            "POST",
            target,
            content=letter.body,
            headers={
                **self._headers,
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                **letter.headers(),
            },
        )
        if address is not None:
            # `Host` was set from the name; TLS verifies the name; the connection goes to the address.
            request.extensions = {**request.extensions, "sni_hostname": target.raw_host.decode("ascii")}
            request.url = target.copy_with(host=address)
        response = await self._client.send(request, stream=True)
        try:
            await _read_some(response)
        finally:
            await response.aclose()
        return _answer(response)


async def _read_some(response: httpx.Response) -> None:
    """Let a receiver finish its answer, if it is a short one. What matters has come already."""
    read = 0
    try:
        async with asyncio.timeout(1):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > MOST_READ:
                    return
    except (TimeoutError, httpx.HTTPError):
        return


def _answer(response: httpx.Response) -> Answer:
    status = response.status_code
    if 200 <= status < 300:
        return Answer(status)
    if 300 <= status < 400:
        return Answer(status, f"answered {status}; redirects are not followed")
    wait_s = _retry_after_s(response.headers)
    return Answer(status, f"answered {status}", retry_after_s=wait_s, hopeless=status == 410)


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds, or the time between two of the receiver's own: its `Date` and the date to come back at."""
    given = headers.get("retry-after", "").strip()
    if given.isdecimal() and given.isascii():
        return float(given[:9])
    try:
        return (parsedate_to_datetime(given) - parsedate_to_datetime(headers["date"])).total_seconds()
    except (ValueError, TypeError, KeyError):
        return None


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
