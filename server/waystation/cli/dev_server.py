"""The development server itself: a whole Waystation in one process, on the project's own Postgres.

Run by its supervisor (`dev.py`) as `python -m waystation.cli.dev_server <order>`, or in the process of the command
with `--no-reload`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from waystation.cli import banner
from waystation.cli.dev_link import Configured, DevOrder, Link, SupervisorLink
from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.terminal import say

if TYPE_CHECKING:  # imported late, while Postgres starts: nobody reads these annotations at run time
    from waystation.catalog import Project
    from waystation.config import Settings

_GRACE_S = 8.0
"""After an edit or Ctrl-C; for half of it runs may go on, then the step in flight is given up and executed again."""


def main() -> None:
    order = DevOrder.from_json(sys.argv[1])
    for fd in (order.listen_fd, order.lock_fd, order.link_fd):
        os.set_inheritable(fd, False)  # programs that graphs start must not keep the port or the lock
    run_dev(order, SupervisorLink(order.link_fd), supervised=True)


def run_dev(order: DevOrder, link: Link, *, supervised: bool, at_end: Callable[[], None] = lambda: None) -> NoReturn:
    """Serve until a signal comes, then end the process."""
    try:
        with told_briefly(debug=order.log_level == "DEBUG"):
            settings, project = _configured(order, link)
            _attach_debugger(order)
            from waystation.cli import serving
            from waystation_db import migrate

            uri = settings.database_uri or link.database_uri()
    except BaseException:
        at_end()
        raise
    settings = settings.model_copy(update={"database_uri": uri})
    tls = serving.Tls(Path(order.certfile), Path(order.keyfile)) if order.certfile and order.keyfile else None

    def on_ready() -> None:
        link.ready()
        _greet(order, project)

    async def serve() -> None:
        await migrate.migrate(uri)
        await serving.serve(
            serving.Serving(
                settings=settings,
                project=project,
                grace_s=min(_GRACE_S, settings.shutdown_grace_s),
                sock=socket.socket(fileno=order.listen_fd),
                alone=True,
                tls=tls,
                worker_id=order.worker_id,
                take_over=True,  # the project's lock says that nobody else uses this name
                supervised=supervised,
                on_ready=on_ready,
            )
        )

    serving.run(serve(), debug=settings.log_level == "DEBUG", at_end=at_end)


def _configured(order: DevOrder, link: Link) -> tuple[Settings, Project]:
    from waystation.catalog.project import configure
    from waystation.telemetry.logs import configure_logs

    config = Path(order.config) if order.config else None
    settings, project = configure(config, root=Path(order.root))
    changed: dict[str, Any] = {"log_level": order.log_level, "n_jobs_per_worker": order.n_jobs}
    if "studio_auth" not in settings.model_fields_set:
        changed["studio_auth"] = "local"
    settings = settings.model_copy(update={name: value for name, value in changed.items() if value is not None})
    configure_logs(
        level=settings.log_level,
        as_json=bool(settings.log_json),
        color=settings.log_color and sys.stdout.isatty(),
        redact=settings.log_redact,
    )
    folders = {project.root, *project.folders}
    env = project.raw.get("env")
    files = [project.config_path] if project.config_path else []
    files += [project.root / env] if isinstance(env, str) else []
    link.configured(Configured(settings.database_uri is None, tuple(map(str, sorted(folders))), tuple(map(str, files))))
    if order.is_first:
        banner.warnings(project.warnings)
    return settings, project


def _greet(order: DevOrder, project: Project) -> None:
    seconds = time.monotonic() - order.started_at
    graphs = {graph_id: spec.description for graph_id, spec in project.graphs.items()}
    if not order.is_first:
        say(f"Restarted in {seconds:.1f} s, serving {', '.join(graphs)} at {order.url}")
        return
    notes = [f"Studio   {order.studio_url}/studio/?baseUrl={order.url}"] if order.studio_url else []
    say(banner.ready(order.url, graphs, seconds=seconds, notes=notes))


def _attach_debugger(order: DevOrder) -> None:
    if order.debug_port is None:
        return
    try:
        debugpy = import_module("debugpy")
    except ImportError:
        raise UsageError("--debug-port needs debugpy: pip install debugpy") from None
    debugpy.listen(("127.0.0.1", order.debug_port))
    say(f"A debugger may attach to 127.0.0.1:{order.debug_port}")
    if order.wait_for_client:
        debugpy.wait_for_client()


if __name__ == "__main__":
    main()
