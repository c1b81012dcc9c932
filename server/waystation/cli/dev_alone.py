"""`waystation dev --no-reload`: the development server in the process of the command, without a supervisor."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from waystation.cli import banner, project_postgres
from waystation.cli.dev_link import Configured, DevOrder
from waystation.cli.dev_server import run_dev
from waystation.cli.project_lock import Holder, ProjectLock
from waystation.config import process_environment
from waystation_db.embedded import EmbeddedPostgres


def run_alone(order: DevOrder, root: Path, lock: ProjectLock, *, browser: bool) -> NoReturn:
    """Serve until a signal comes, then end the process."""
    link = _OwnLink(order, root, lock, browser=browser)
    run_dev(order, link, supervised=False, at_end=link.close)


class _OwnLink:
    """Does itself what a supervisor would: Postgres starts in a thread while the server's code is imported."""

    def __init__(self, order: DevOrder, root: Path, lock: ProjectLock, *, browser: bool) -> None:
        self._order = order
        self._root = root
        self._lock = lock
        self._browser = browser
        self._postgres: Future[EmbeddedPostgres] | None = None

    def configured(self, report: Configured) -> None:
        if report.needs_postgres:
            # Its guard is no child of this thread, so the thread may end.
            self._postgres = ThreadPoolExecutor(1).submit(project_postgres.start, self._root)

    def database_uri(self) -> str:
        assert self._postgres is not None, "asked for by `configured` before"
        return self._postgres.result().conninfo

    def ready(self) -> None:
        self._lock.announce(Holder("dev", os.getpid(), self._order.url, ready=True))
        if self._browser:
            banner.open_browser(f"{self._order.url}/docs", process_environment())

    def close(self) -> None:
        if self._postgres is not None and self._postgres.exception() is None:
            self._postgres.result().stop()
        self._lock.release()
