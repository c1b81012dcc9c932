"""`waystation webhooks`: what became of webhooks, and sending them again."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import Config

Tenant = Annotated[str, typer.Option("--tenant", help="Whose webhooks.")]

webhooks = typer.Typer(
    help="Webhooks that were sent or given up.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@webhooks.command("list", short_help="The newest ones, and what became of them.")
def list_webhooks(
    config: Config = None,
    tenant: Tenant = "default",
    status: Annotated[
        Literal["pending", "delivered", "spent"] | None,
        typer.Option(help="Only those; spent ones were given up.", show_default="all"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """List webhooks, the newest first: id, status, tries, answer, run, URL.

    \b
    Example:
      DATABASE_URI=postgres://... waystation webhooks list --status spent
    """
    with told_briefly():
        from waystation.cli.webhooks import list_all

        list_all(config, tenant=tenant, status=status, limit=limit)


@webhooks.command("replay", short_help="Send them again.")
def replay(
    deliveries: Annotated[
        list[str] | None, typer.Argument(help="Ids, as `webhooks list` shows them.", show_default=False)
    ] = None,
    all_spent: Annotated[bool, typer.Option("--all-spent", help="All that were given up.")] = False,
    config: Config = None,
    tenant: Tenant = "default",
) -> None:
    """Send webhooks again, as if they had never been tried. A running worker sends them.

    \b
    Examples:
      waystation webhooks replay 6569c32e-ccc0-4747-858d-8d5b8779e1c5
      waystation webhooks replay --all-spent
    """
    with told_briefly():
        if bool(deliveries) == all_spent:
            raise UsageError("name the webhooks to send again, or use --all-spent")
        from waystation.cli.webhooks import replay_all

        replay_all(config, tenant=tenant, deliveries=None if all_spent else deliveries)
