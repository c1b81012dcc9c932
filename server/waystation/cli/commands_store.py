"""`reindex`: the store's vectors after another embedding was configured."""

from __future__ import annotations

from typing import Annotated

import typer

from waystation.cli.failures import told_briefly
from waystation.cli.options import Config


def reindex(
    config: Config = None,
    all_items: Annotated[bool, typer.Option("--all", help="Also items that were never indexed.")] = False,
    resume: Annotated[bool, typer.Option("--continue", help="Go on where the last one stopped.")] = False,
) -> None:
    """Make the vectors of the store anew, as `store.index` says now. Needs DATABASE_URI.

    Stop the servers that have the old configuration first. Those with the new one may start as soon as this says so:
    until its turn comes an item is found like one that is not indexed.

    \b
    Examples:
      waystation reindex
      waystation reindex --continue        after it was interrupted
    """
    with told_briefly():
        from waystation.cli.reindexing import run

        run(config, all_items=all_items, resume=resume)
