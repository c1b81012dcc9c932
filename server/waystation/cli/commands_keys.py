"""`waystation keys`: the API keys of an installation."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from waystation.cli.failures import told_briefly
from waystation.cli.options import Config

keys = typer.Typer(
    name="keys",
    help="API keys: make, list and revoke them. Needs DATABASE_URI; takes effect with waystation.auth.api_keys.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class RoleName(StrEnum):
    admin = "admin"
    service = "service"
    user = "user"
    reader = "reader"


Tenant = Annotated[str | None, typer.Option(help="Only this tenant's.", show_default="all")]


@keys.command(short_help="Make a key, and show it this once.")
def create(
    identity: Annotated[str, typer.Argument(help="Whom it stands for; graphs see it as the user.")],
    role: Annotated[list[RoleName], typer.Option("--role", "-r", help="What it may; several times for several roles.")],
    tenant: Annotated[str, typer.Option(help="Whose threads, runs and assistants it is about.")] = "default",
    name: Annotated[str, typer.Option(help="A note for the list.")] = "",
    expires_in: Annotated[
        str | None, typer.Option(help="Such as 90d, 12h or 30m.", show_default="does not expire")
    ] = None,
    config: Config = None,
) -> None:
    """Make a key. It is shown once, alone on standard output; what is stored does not suffice to show it again.

    \b
    admin     everything in its tenant
    service   runs, threads, crons and store items of the tenant; reads assistants (a backend for many users)
    user      the same for what it made itself (a person)
    reader    reads everything in its tenant

    \b
    Example:
      waystation keys create ci --role service --expires-in 90d
    """
    with told_briefly():
        from waystation.cli.keys import make

        make(config, identity=identity, roles=[one.value for one in role], tenant=tenant, name=name, life=expires_in)


@keys.command("list", short_help="Show the keys, without what makes them keys.")
def list_(tenant: Tenant = None, config: Config = None) -> None:
    """List the keys: id, tenant, identity, roles, state, last use (to the minute)."""
    with told_briefly():
        from waystation.cli.keys import show

        show(config, tenant=tenant)


@keys.command(short_help="Refuse a key from now on.")
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, or the key itself.")], tenant: Tenant = None, config: Config = None
) -> None:
    """Revoke a key. Every process refuses it within two seconds."""
    with told_briefly():
        from waystation.cli.keys import end

        end(config, key=key, tenant=tenant)
