"""The socket that a server listens on, opened before anything slow begins: a taken port is told at once.

A supervisor opens it once and hands it to each of its children in turn, so that clients wait while a child is replaced
and are never refused.
"""

from __future__ import annotations

import errno
import socket

from waystation.cli.failures import CommandError

BACKLOG = 2048


def bind(host: str, port: int, *, prefix: str = "") -> socket.socket:
    """A listening socket: connections are taken from now on, and wait until somebody serves them. `prefix`: of the
    options that name host and port, such as `health-`.

    Raises CommandError: the port is taken, not allowed, or `host` is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError) as error:
        raise CommandError(f"--{prefix}host {host}: {error}") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CommandError(_why(error, host, port, prefix)) from None
    return sock


def reach(sock: socket.socket) -> tuple[str, int]:
    """Host and port that lead to it from this machine."""
    host, port = sock.getsockname()[:2]
    return "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host, port


def url_of(sock: socket.socket, *, https: bool = False) -> str:
    """Where to reach it from this machine."""
    host, port = reach(sock)
    return f"{'https' if https else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _why(error: OSError, host: str, port: int, prefix: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            other = f"--{prefix}port {_other(port)}"
            return f"Port {port} is in use. Stop what listens there, or choose another one: {other}"
        case errno.EACCES:
            return (
                f"Port {port} needs more rights than this user has: choose one above 1023, such as --{prefix}port 8000"
            )
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: --{prefix}host 127.0.0.1, or 0.0.0.0 for all"
        case _:
            return f"Cannot listen on {host}:{port}: {error.strerror}"


def _other(port: int) -> int:
    return port + 1 if port < 65535 else port - 1
