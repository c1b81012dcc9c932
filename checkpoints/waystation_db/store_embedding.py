"""Embeds what several callers wait for at the same moment in one call, for a call costs more than a text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from waystation_db.store_vectors import StoreIndex, embedded

_MAX_TEXTS = 512


class EmbeddedTogether:
    """One event loop's calls of an embedding function."""

    def __init__(self, index: StoreIndex) -> None:
        self._index = index
        self._waiting: list[tuple[asyncio.Future[dict[str, list[float]]], Sequence[str]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def vectors(self, texts: Sequence[str]) -> dict[str, list[float]]:
        """The texts' vectors.

        Raises:
            BadEmbedding: they are none.
            Whatever the embedding function raises on these texts.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, list[float]]] = loop.create_future()
        self._waiting.append((future, texts))
        if len(self._waiting) == 1:
            call = loop.create_task(self._call(), name="embed")
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await future

    async def _call(self) -> None:
        await asyncio.sleep(0)  # what the loop's other tasks are about to ask for comes along
        waiting, self._waiting = self._waiting, []
        await self._settle(waiting)

    async def _settle(self, waiting: Sequence[tuple[asyncio.Future[dict[str, list[float]]], Sequence[str]]]) -> None:
        distinct = list(dict.fromkeys(text for future, texts in waiting for text in texts if not future.done()))
        try:
            found: dict[str, list[float]] = {}
            for begin in range(0, len(distinct), _MAX_TEXTS):
                some = distinct[begin : begin + _MAX_TEXTS]
                found.update(zip(some, await embedded(self._index, some), strict=True))
        except Exception as error:
            # The user's code: what it raises belongs to whoever asked, and to nobody else who waited along.
            if len(waiting) > 1:
                for one in waiting:
                    await self._settle([one])
            elif not waiting[0][0].done():
                waiting[0][0].set_exception(error)
            return
        except BaseException:
            for future, _ in waiting:
                future.cancel()
            raise
        for future, texts in waiting:
            if not future.done():
                future.set_result({text: found[text] for text in texts})
