"""Exit code 0 when the server in this container answers `GET /ok`. Run by `docker` and `docker compose`."""

import os
import sys
import urllib.request

port = os.environ.get("PORT", "").strip() or "8000"
# Not through a proxy that the environment names for the world outside.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(f"http://127.0.0.1:{port}/ok", timeout=5) as answer:
        healthy = answer.status == 200
except OSError as error:
    sys.exit(f"/ok does not answer: {error}")
sys.exit(0 if healthy else "/ok is not 200")
