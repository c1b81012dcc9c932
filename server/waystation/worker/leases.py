"""Lease renewal, from a thread and a connection of its own.

Neither a node that blocks the graph loop nor a busy API loop can keep it from renewing. What it learns (lost leases,
cancel
wishes) it hands to the graph loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import structlog
from psycopg import Connection
from psycopg.rows import TupleRow

from waystation.telemetry import metrics
from waystation.worker.loop_watch import LoopWatch
from waystation_db import runs
from waystation_db.rows import CancelWish, RunKey

log = structlog.get_logger(__name__)

Attempt = tuple[RunKey, int]


class LeaseKeeper:
    """Renews the leases of the attempts it is told to hold, every `renew_s` seconds, until closed.

    `on_lost` and `on_wish` are called on the lease thread and must only hand over.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        lease_s: float,
        renew_s: float,
        on_lost: Callable[[RunKey, int], None],
        on_wish: Callable[[CancelWish], None],
        watch: LoopWatch,
    ) -> None:
        self._conninfo = conninfo
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._on_lost = on_lost
        self._on_wish = on_wish
        self._watch = watch
        self._held: dict[Attempt, None] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waystation-leases", daemon=True)
        self._renewed_at = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def hold(self, key: RunKey, attempt: int) -> None:
        """Renew this attempt's lease from now on. From any thread."""
        with self._lock:
            self._held[key, attempt] = None

    def let_go(self, key: RunKey, attempt: int) -> None:
        """Stop renewing it. From any thread."""
        with self._lock:
            self._held.pop((key, attempt), None)

    def close(self) -> None:
        """Stop the thread; leases still held run out by themselves."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        conn: Connection[TupleRow] | None = None
        retry_s = min(0.5, self._renew_s)
        wait_s = self._renew_s
        while not self._stop.wait(wait_s):
            started = time.monotonic()
            self._watch.check()
            try:
                conn = conn or self._connect()
                self._renew(conn)
                wait_s = max(0.0, self._renew_s - (time.monotonic() - started))
            except (psycopg.Error, OSError) as e:
                # Postgres is away: keep trying. The lease may run out meanwhile; the fence holds whatever we do here.
                log.warning("lease renewal failed, trying again", error=str(e).strip(), retry_s=retry_s)
                metrics.LEASE_RENEWAL_FAILURES.inc()
                conn = _closed(conn)
                wait_s = retry_s
        _closed(conn)

    def _connect(self) -> Connection[TupleRow]:
        # A dead network must be noticed while there is still time to renew over another connection.
        patience_s = self._lease_s / 3
        return psycopg.connect(
            self._conninfo,
            autocommit=True,
            prepare_threshold=None,
            application_name="waystation-leases",
            connect_timeout=max(2, int(patience_s)),  # libpq knows no shorter one
            tcp_user_timeout=int(patience_s * 1000),
        )

    def _renew(self, conn: Connection[TupleRow]) -> None:
        with self._lock:
            held = list(self._held)
        now = time.monotonic()
        if held and now - self._renewed_at > self._lease_s:
            metrics.LEASE_RENEWALS_LATE.inc()
        if not held:
            self._renewed_at = now
            return
        renewed = runs.renew_leases(conn, held, lease_s=self._lease_s)
        self._renewed_at = now
        for key, attempt in renewed.lost:
            with self._lock:
                still_held = (key, attempt) in self._held
            if still_held:  # else it finished between the snapshot and the statement
                self._on_lost(key, attempt)
        for wish in renewed.wishes:
            self._on_wish(wish)


def _closed(conn: Connection[TupleRow] | None) -> None:
    if conn is not None:
        conn.close()
