"""A process that uses the embedded Postgres in argv[1], prints the postmaster's id and stays until its input ends."""

import sys
from pathlib import Path

from waystation_db.embedded import EmbeddedPostgres

server = EmbeddedPostgres.start(Path(sys.argv[1]))
sys.stdout.write(f"{server.pid}\n")
sys.stdout.flush()
sys.stdin.read()
server.stop()
sys.stdout.write("stopped\n")
