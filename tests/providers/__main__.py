"""`python -m tests.providers --port 0`: prints its address on one line and serves until its standard input ends or it
is terminated. Controlled over `/_control/…`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from .server import FaultServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    port: int = parser.parse_args().port
    over = threading.Event()

    def end(_number: int, _frame: object) -> None:
        over.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with FaultServer(port=port) as server:
        sys.stdout.write(server.root + "\n")
        sys.stdout.flush()
        if not sys.stdin.isatty():
            threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
        over.wait()


main()
