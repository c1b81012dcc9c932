"""Every connection is an open file, and a process may have so many: often 1,024, unless it asks for more.

At the limit nothing can be opened, neither for clients nor towards Postgres. So the limit is raised as far as the
system allows, and streams, which stay open, leave some of it to everybody else.
"""

from __future__ import annotations

import logging

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None

RESERVED = 256
"""For Postgres, Redis, files, and requests that do not last."""

_ENOUGH = 65_536

log = logging.getLogger(__name__)


def raise_limit() -> None:
    """Let this process have as many open files as it is allowed to ask for."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # some systems allow less than they say
        log.warning("The limit of open files stays as it is", extra={"limit": soft, "error": str(error)})


def room_for_streams(wanted: int) -> int:
    """How many of the wanted streams the limit of open files leaves room for."""
    if resource is None:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + RESERVED:
        return wanted
    room = max(soft - RESERVED, soft // 2)
    log.warning(
        "The limit of open files (ulimit -n) leaves room for fewer streams than WAYSTATION_MAX_STREAM_READERS",
        extra={"open_files": soft, "streams": room},
    )
    return room
