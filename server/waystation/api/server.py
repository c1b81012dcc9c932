"""uvicorn's server, taught two things: to end long answers when it stops, and to forget peers that never read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

import uvicorn

from waystation.api.frame import Application
from waystation.api.open_files import raise_limit

UNREAD_MS = 60_000
"""After this the kernel ends a connection whose peer takes nothing of what was sent."""

_LOOK_S = 0.02

log = logging.getLogger(__name__)


class ApiServer(uvicorn.Server):
    """One process's HTTP server. `stop()` begins the graceful end; signals do the same while `serve()` runs."""

    def __init__(
        self,
        app: Application,
        *,
        host: str,
        port: int,
        grace_s: float = 10.0,
        certfile: Path | None = None,
        keyfile: Path | None = None,
    ) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
                http="httptools",
                ws="websockets-sansio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(grace_s),
                backlog=2048,
                proxy_headers=True,  # of the proxies that FORWARDED_ALLOW_IPS names, by default those on this machine
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            )
        )

    @property
    def bound_port(self) -> int:
        """The port it listens on; it differs from the one asked for when that was 0."""
        return self.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Finish what is being answered, then return from `serve()`."""
        self.should_exit = True

    async def let_go(self, *, at_most_s: float) -> None:
        """Wait until no client holds a connection any more, or so long. Clients whose next answer tells them to close
        it go elsewhere then; a connection that is closed while a request is on its way costs its client a retry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while self.server_state.connections:  # noqa: ASYNC110  # uvicorn tells nobody
                    await asyncio.sleep(_LOOK_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        raise_limit()
        await super().startup(sockets=sockets)
        listening = getattr(self, "servers", [])
        try:
            for listener in (listener for server in listening for listener in server.sockets):
                _forget_unread(listener.fileno())
                self._tell_own_address(listener)
        except BaseException:  # uvicorn counts as started, and nobody else would close what it listens on
            self.started = False
            for server in listening:
                server.close()
            raise

    def _tell_own_address(self, listener: socket.socket) -> None:
        """Where this process reaches itself, for webhooks that are paths on the server."""
        services = getattr(self._app.state, "services", None)
        if services is None or listener.family not in (socket.AF_INET, socket.AF_INET6):
            return
        name: tuple[str, int] = listener.getsockname()[:2]
        host, port = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0]), name[1]
        scheme = "https" if self.config.is_ssl else "http"
        services.address.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted. Nothing may have been read from it."""

        def protocol() -> asyncio.Protocol:
            kind: Any = self.config.http_protocol_class
            return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError:  # its client did not wait
            connection.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.stop_streams()
        await super().shutdown(sockets=sockets)


def _forget_unread(fileno: int) -> None:
    """Accepted connections inherit the option from the listening socket."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux only
    if option is None:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=fileno) as listener:
        try:
            listener.setsockopt(socket.IPPROTO_TCP, option, UNREAD_MS)
        finally:
            listener.detach()  # the descriptor belongs to the event loop
