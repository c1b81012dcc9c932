"""The store on the API's loop: on its own connections, no graph holds it up. Texts are embedded where graphs run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence

from waystation.errors import BadRequest, Unavailable, WaystationError
from waystation.services.graph_host import GraphHost, GraphSide
from waystation_db.pool import Database
from waystation_db.store import PostgresStore

EMBEDDING_S = 30.0
"""How long the project's embedding function may take on a request; then the client is told to come back."""

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_api_store(db: Database, host: GraphHost) -> AsyncGenerator[PostgresStore]:
    """The store of the graph loop, for requests."""

    async def embed(texts: list[str]) -> Sequence[Sequence[float]]:
        async def there(side: GraphSide) -> Sequence[Sequence[float]]:
            return await side.store.embed(texts)

        try:
            async with asyncio.timeout(EMBEDDING_S):
                return await host.call(there)
        except TimeoutError:
            raise Unavailable(
                f"store.index.embed did not answer within {EMBEDDING_S:g} s", headers={"Retry-After": "5"}
            ) from None
        except WaystationError:
            raise
        except Exception as error:  # the user's code: its class is told, its text is the operator's
            log.warning("store.index.embed failed on a request", exc_info=True)
            raise BadRequest(f"store.index.embed failed on this text: {type(error).__name__}") from None

    async with host.side.store.beside(db, embed=embed) as store:
        yield store
