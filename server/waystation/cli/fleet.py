"""The child processes of `waystation up`: kept running, replaced on demand, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from waystation.cli.children import Child, ending
from waystation.cli.failures import GRAPHS, UNUSABLE, ChildFailed
from waystation.cli.terminal import paint, say

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0
_STABLE_S = 60.0
_HURRY_AFTER_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A process that there should always be one of. `stop_s`: how long it may take to stop."""

    name: str
    command: Sequence[str]
    stop_s: float
    environ: Mapping[str, str] | None = None
    pass_fds: Sequence[int] = ()


@dataclass(slots=True)
class _Member:
    role: Role
    child: Child | None = None
    keeping: asyncio.Task[None] | None = None
    wanted: bool = True
    replacing: bool = False
    delay_s: float = field(default=_FIRST_DELAY_S)


class Fleet:
    """Members join with `add` and are started again whenever they end, until `stop`.

    `failed` is set when a member refuses to start before `established` was called: then nothing will come of it.
    """

    def __init__(self, *, on_end: Callable[[int], None] = lambda pid: None) -> None:
        """`on_end` is told the id of every process that has ended."""
        self._on_end = on_end
        self._members: dict[str, _Member] = {}
        self._established = False
        self._changed = asyncio.Event()
        self._is_watched = False
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def names(self) -> list[str]:
        """Of the members, in the order in which they joined."""
        return list(self._members)

    def add(self, role: Role) -> None:
        """Start a process, and keep one running."""
        member = self._members[role.name] = _Member(role)
        member.keeping = asyncio.create_task(self._keep(member), name=f"keep {role.name}")

    def established(self, *, is_watched: bool) -> None:
        """Everything has started once: from now on nothing is given up. When watched, a broken project waits."""
        self._established = True
        self._is_watched = is_watched

    async def replace(self, names: Sequence[str]) -> None:
        """Stop these one after the other; each starts again at once. Runs are handed over, after 5 s in any case."""
        self._changed.set()
        self._changed.clear()
        for name in names:
            member = self._members[name]
            if (child := member.child) is not None:
                member.replacing = True
                await _hand_over(child)

    async def stop(self, names: Sequence[str] | None = None) -> None:
        """Ask these (or all) to stop at the same time, and wait for them at most as long as their grace allows."""
        members = [self._members[name] for name in (names if names is not None else self._members)]
        for member in members:
            member.wanted = False
        await asyncio.gather(*(_stop(member) for member in members))

    def hurry(self) -> None:
        """Ask everybody once more: hand over now."""
        for member in self._members.values():
            if member.child is not None:
                member.child.ask_to_stop()

    def kill(self) -> None:
        for member in self._members.values():
            if member.child is not None:
                member.child.kill()

    async def _keep(self, member: _Member) -> None:
        role = member.role
        while member.wanted:
            started_at = time.monotonic()
            member.replacing = False
            child = member.child = await Child.start(role.command, environ=role.environ, pass_fds=role.pass_fds)
            code = await child.ended()
            member.child = None
            self._on_end(child.pid)
            if not member.wanted or member.replacing:
                continue
            if not self._established and code > 0:
                if not self.failed.done():
                    self.failed.set_exception(ChildFailed(code))
                return
            if time.monotonic() - started_at > _STABLE_S:
                member.delay_s = _FIRST_DELAY_S
            await self._pause(member, code)

    async def _pause(self, member: _Member, code: int) -> None:
        name = paint(member.role.name, "red")
        if self._is_watched and code in (GRAPHS, UNUSABLE):
            say(f"{name} waits for a change that mends it", err=True)
            await self._changed.wait()
            return
        say(f"{name} {ending(code)}; starting it again in {member.delay_s:g} s", err=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(member.delay_s):
                await self._changed.wait()
        member.delay_s = min(member.delay_s * 2, _LONGEST_DELAY_S)


async def _hand_over(child: Child) -> None:
    child.ask_to_stop()
    try:
        async with asyncio.timeout(_HURRY_AFTER_S):
            await child.ended()
    except TimeoutError:
        await child.stop(_HURRY_AFTER_S)


async def _stop(member: _Member) -> None:
    if member.child is not None:
        await member.child.stop(member.role.stop_s)
    if member.keeping is not None:
        member.keeping.cancel()
        await asyncio.wait([member.keeping])
