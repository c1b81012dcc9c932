"""Empties the outbox of webhooks: claims what is due, sends it, writes down what came of it.

It lives on the API's loop and has nothing to do with the slots of runs: however slow the receivers are, runs go on. Any
number of processes may do it at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator

import structlog

from waystation.catalog.webhook_headers import webhook_headers
from waystation.catalog.webhook_secrets import tenant_secrets
from waystation.config import process_environment
from waystation.runs.webhook_urls import address_rules
from waystation.services import Services
from waystation.telemetry import metrics
from waystation.worker.webhook_post import Answer, Letter, Postman, secret_bytes
from waystation_db import webhooks
from waystation_db.errors import DatabaseError
from waystation_db.retrying import is_passing
from waystation_db.webhooks import Delivery

log = structlog.get_logger(__name__)

AT_A_TIME = 32
"""Webhooks under way in a process."""

PER_HOST = 8
"""Of them to one host: a receiver that does not answer keeps the others waiting no longer than that."""

CLAIMED_AT_ONCE = 8

LEASE_SPARE_S = 30.0
"""A delivery is taken to be lost so long after its try should have ended."""

LONGEST_PAUSE_S = 6 * 3600.0
LONGEST_WISH_S = 24 * 3600.0
"""How far a receiver's `Retry-After` is heeded."""

TIDY_S = 60.0
DELIVERED_KEPT_S = 24 * 3600.0
CLOSING_S = 2.0


def pause_s(tries: int, *, first_s: float) -> float:
    """How long to wait after so many tries: three times as long each time, a tenth more or less."""
    exact = min(first_s * 3 ** min(tries - 1, 30), LONGEST_PAUSE_S)
    return exact * random.uniform(0.9, 1.1)


class WebhookSender:
    """The sender of one process."""

    def __init__(self, services: Services) -> None:
        """Raises ConfigError for headers and secrets that cannot be read."""
        settings, project = services.settings, services.project
        environ = {**project.env, **process_environment()}
        self._services = services
        self._secrets = _keys_in(settings.webhook_secret, settings.webhook_secret_previous)
        self._own_secrets = {
            tenant_id: _keys_in(*secrets)
            for tenant_id, secrets in tenant_secrets(project.waystation.webhooks, environ).items()
        }
        self._postman = Postman(
            rules=address_rules(services),
            headers=webhook_headers(project.webhooks, environ),
            timeout_s=settings.webhook_timeout_s,
        )
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._hosts = Counter[str]()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Send what is due until the block is left; what is under way then has a moment to end."""
        tasks = [
            asyncio.create_task(self._claim_until_closed(), name="webhooks"),
            asyncio.create_task(self._tidy(), name="webhooks-tidy"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._sending:
                await asyncio.wait(self._sending, timeout=CLOSING_S)
            for task in self._sending:
                task.cancel()
            await self._postman.close()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def _claim_until_closed(self) -> None:
        while True:
            self._wake.clear()
            more = False
            try:
                more = await self._claim_some()
            except Exception as error:
                # The loop's boundary: a process that has stopped sending looks as if nothing were due.
                _tell("webhooks could not be claimed, trying again", error)
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._services.settings.poll_s * random.uniform(0.8, 1.0)):
                        await self._wake.wait()

    async def _claim_some(self) -> bool:
        """Begin to send what is due; True when there may be more."""
        busy = {host for host, count in self._hosts.items() if count >= PER_HOST}
        # All that is claimed may be to one host.
        fullest = max((count for host, count in self._hosts.items() if host not in busy), default=0)
        free = min(CLAIMED_AT_ONCE, AT_A_TIME - len(self._sending), PER_HOST - fullest)
        if free <= 0:
            return False
        settings = self._services.settings
        async with self._services.db.connection() as conn:
            claimed = await webhooks.claim(
                conn,
                limit=free,
                lease_s=settings.webhook_timeout_s + LEASE_SPARE_S,
                relative=self._base_url is not None,
                busy=busy,
            )
        for delivery in claimed:
            host = _host_of(delivery.url)
            self._hosts[host] += 1
            task = asyncio.create_task(self._deliver(delivery, host))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return len(claimed) == free

    @property
    def _base_url(self) -> str | None:
        return self._services.settings.base_url or self._services.address.url

    async def _deliver(self, delivery: Delivery, host: str) -> None:
        try:
            body = delivery.payload.rstrip().removesuffix("}") + f', "webhook_sent_at" : "{delivery.sent_at}"}}'
            secrets = self._own_secrets.get(delivery.tenant_id, self._secrets)
            letter = Letter(delivery.delivery_id, delivery.timestamp_s, body.encode(), secrets)
            answer = await self._postman.send(delivery.url, letter, base_url=self._base_url)
            await self._settle(delivery, answer)
        except Exception as error:
            # One delivery's boundary: its lease runs out, and it is tried again.
            _tell("what became of a webhook could not be written down", error)
        finally:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
            self._wake.set()

    async def _settle(self, delivery: Delivery, answer: Answer) -> None:
        about = {"delivery_id": delivery.delivery_id, "run_id": delivery.run_id, "error": answer.error}
        async with self._services.db.connection() as conn:
            if answer.is_taken and answer.status is not None:
                metrics.WEBHOOK_TRIES.labels("delivered").inc()
                await webhooks.settle_delivered(conn, delivery, response_status=answer.status)
                return
            delay_s = self._delay_s(delivery, answer)
            metrics.WEBHOOK_TRIES.labels("spent" if delay_s is None else "failed").inc()
            if delay_s is None:
                log.warning("a webhook is given up; it can be replayed", **about)
            else:
                log.info("a webhook was not taken, trying again", retry_s=round(delay_s, 1), **about)
            await webhooks.settle_failed(
                conn, delivery, delay_s=delay_s, response_status=answer.status, error=answer.error or ""
            )

    def _delay_s(self, delivery: Delivery, answer: Answer) -> float | None:
        settings = self._services.settings
        if answer.hopeless or delivery.tries >= settings.webhook_tries:
            return None
        wished_s = min(answer.retry_after_s or 0.0, LONGEST_WISH_S)
        return max(wished_s, pause_s(delivery.tries, first_s=settings.webhook_retry_s))

    async def _tidy(self) -> None:
        spent_s = self._services.settings.webhook_keep_days * 24 * 3600.0
        while True:
            await asyncio.sleep(TIDY_S * random.uniform(0.8, 1.2))
            try:
                async with self._services.db.connection() as conn:
                    kept_s = min(DELIVERED_KEPT_S, spent_s)
                    await webhooks.prune(conn, delivered_s=kept_s, spent_s=spent_s, limit=1000)
            except Exception as error:
                # The loop's boundary, as above.
                _tell("old webhooks could not be forgotten, trying again", error)


def _keys_in(*secrets: str | None) -> tuple[bytes, ...]:
    return tuple(secret_bytes(secret) for secret in secrets if secret)


def _host_of(url: str) -> str:
    """As `claim_deliveries` reads it out of the URL: what stands between the slashes."""
    return "" if url.startswith("/") else url.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]


def _tell(what: str, error: Exception) -> None:
    if is_passing(error) or isinstance(error, DatabaseError):
        log.warning(what, error=str(error))
    else:
        log.error(what, exc_info=error)
