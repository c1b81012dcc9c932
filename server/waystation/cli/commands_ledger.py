"""`waystation ledger`: what calls of models and tools cost, as the guards' ledger has it, and setting it right."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from waystation.cli.failures import told_briefly
from waystation.cli.options import Config

Tenant = Annotated[str, typer.Option("--tenant", help="Whose ledger.")]
Since = Annotated[datetime | None, typer.Option(help="Entries from this time on, in UTC.", show_default="all")]
Until = Annotated[datetime | None, typer.Option(help="Entries before this time, in UTC.", show_default="all")]

ledger = typer.Typer(
    help="What calls cost, as the guards' ledger has it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@ledger.command("export", short_help="Entries as lines of JSON.")
def export(
    config: Config = None,
    tenant: Tenant = "default",
    since: Since = None,
    until: Until = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file to write.", show_default="standard output")
    ] = None,
    all_kinds: Annotated[
        bool, typer.Option("--all", help="Also notes of alerts and of the self-tests of servers that start.")
    ] = False,
) -> None:
    """Write a tenant's entries, the oldest first, one JSON object a line. Their costs add up to what was spent.

    \b
    Example:
      waystation ledger export --tenant acme --since 2026-11-01 --until 2026-12-01 -o november.jsonl
    """
    with told_briefly():
        from waystation.cli.ledger import export_all

        export_all(config, tenant=tenant, since=since, until=until, output=output, all_kinds=all_kinds)


@ledger.command("recalculate", short_help="Other prices, and balances made anew.")
def recalculate(
    config: Config = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A price list.",
            show_default="waystation.guards.prices, else the library's",
        ),
    ] = None,
    tenant: Tenant = "default",
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Price a tenant's model calls anew, and make its balances what its entries say.

    No entry is changed: what costs otherwise now is written as corrections. Servers may run meanwhile.

    \b
    Examples:
      waystation ledger recalculate --prices prices.json --since 2026-11-01 --dry-run
      waystation ledger recalculate --prices prices.json --since 2026-11-01
    """
    with told_briefly():
        from waystation.cli.ledger import recalculate_all

        recalculate_all(config, prices=prices, tenant=tenant, since=since, until=until, dry_run=dry_run)


# An amount below zero begins as an option does.
@ledger.command("correct", short_help="Add to what one call cost.", context_settings={"ignore_unknown_options": True})
def correct(
    call: Annotated[str, typer.Argument(help="The call's id: what `call` of an entry begins with.")],
    usd: Annotated[float, typer.Argument(help="What to add, in dollars; below zero to take away.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the entry.")],
    config: Config = None,
    tenant: Tenant = "default",
) -> None:
    """Add to what one call cost: a refund, or a call that was lost with its process and is on the provider's bill.

    \b
    Example:
      waystation ledger correct --reason "invoice 4711" 0198c2d4-7e0e-7b6c-9d9e-1a2b3c4d5e6f 0.0042
    """
    with told_briefly():
        from waystation.cli.ledger import correct_one

        correct_one(config, tenant=tenant, call=call, usd=usd, reason=reason)
