"""Child processes of `dev` and `up`: started so that they end with their parent, asked to stop, and then made to."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, slots=True)
class Child:
    """A running child."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(
        cls, command: Sequence[str], *, environ: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> Child:
        """Start `command`; it hears nothing of Ctrl-C that its code does not ask for, and dies with this process.

        Call it on the main thread: the kernel takes the thread that made the child for its parent.
        """
        tethered = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
        return cls(await asyncio.create_subprocess_exec(*tethered, env=environ, pass_fds=pass_fds))

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ended(self) -> int:
        """Its exit code, negative for a signal; waits for it."""
        return await self.process.wait()

    def ask_to_stop(self) -> None:
        """Asking twice says: in a hurry."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)

    async def stop(self, within_s: float) -> int:
        """Ask it to stop, and kill it when that takes longer. Returns its exit code."""
        self.ask_to_stop()
        try:
            async with asyncio.timeout(within_s):
                return await self.ended()
        except TimeoutError:
            self.kill()
            return await self.ended()

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


def python_command(module: str, *arguments: str) -> list[str]:
    """This very Python, running `module`."""
    return [sys.executable, "-m", module, *arguments]


def ending(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


PIPE = subprocess.PIPE
