"""Events on their way through Postgres and Redis, encrypted. What stays in the memory of a process is not."""

from __future__ import annotations

from collections.abc import Sequence

from waystation.events.chunks import PackedEvents
from waystation_db.cipher import Cipher, pack, unpack
from waystation_db.places import end_place, event_place
from waystation_db.rows import RunKey


async def sealed_chunks(cipher: Cipher | None, key: RunKey, chunks: list[PackedEvents]) -> list[PackedEvents]:
    """Chunks as they are kept outside of this process."""
    if cipher is None:
        return chunks
    return [
        chunk._replace(payload=await pack(cipher, event_place(key, chunk.epoch_ms, chunk.first_counter), chunk.payload))
        for chunk in chunks
    ]


async def opened_chunks(cipher: Cipher | None, key: RunKey, chunks: Sequence[PackedEvents]) -> Sequence[PackedEvents]:
    """What `sealed_chunks` was given. Raises Undecipherable."""
    if cipher is None:
        return chunks
    return [
        chunk._replace(
            payload=await unpack(cipher, event_place(key, chunk.epoch_ms, chunk.first_counter), chunk.payload)
        )
        for chunk in chunks
    ]


async def sealed_end(cipher: Cipher | None, key: RunKey, end: bytes) -> bytes:
    """An encoded end as it is kept outside of this process."""
    return end if cipher is None else await pack(cipher, end_place(key), end)


async def opened_end(cipher: Cipher | None, key: RunKey, end: bytes) -> bytes:
    """What `sealed_end` was given. Raises Undecipherable."""
    return end if cipher is None else await unpack(cipher, end_place(key), end)
