"""Where this process can reach the API that it serves itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class OwnAddress:
    """`url` is None until the server listens, and in a process that serves no API and was told of none."""

    url: str | None = None
