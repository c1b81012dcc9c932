"""Runs a command that ends when its parent does, even one that is killed. Linux's kernel sees to that.

Run as a script (`python -I -S tether.py <pid of the parent> <command> ...`), never imported. Elsewhere the commands
look after their parent themselves (`serving.py`).
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        # Survives the exec below.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)  # it died before we asked
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
