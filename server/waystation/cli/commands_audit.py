"""`waystation audit`: the audit log, straight on the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import Config

audit = typer.Typer(
    help="The audit log: export it, and verify that nobody changed it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Tenant = Annotated[str, typer.Option("--tenant", help="Whose log.")]


@audit.command(short_help="Print it as JSON Lines.")
def export(
    config: Config = None,
    tenant: Tenant = "default",
    after: Annotated[int, typer.Option(min=0, help="Records after this number.")] = 0,
    action: Annotated[str | None, typer.Option(help="Only `tool.refused`, or `tool.*`.", show_default="all")] = None,
) -> None:
    """Print a tenant's records, the oldest first, one a line. The whole log can be verified again with
    `waystation audit verify --file`.

    \b
    Example:
      DATABASE_URI=postgres://... waystation audit export --tenant acme > audit.jsonl
    """
    with told_briefly():
        from waystation.cli.audit import export_all

        export_all(config, tenant=tenant, after=after, action=action)


@audit.command(short_help="Compute every hash again.")
def verify(
    config: Config = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose log.", show_default="all tenants'")] = None,
    file: Annotated[Path | None, typer.Option(help="An export to verify, instead of the database.")] = None,
    expect: Annotated[
        str | None, typer.Option(help="SEQ:HASH, as an earlier verify printed it: this record must still be there.")
    ] = None,
) -> None:
    """Verify that no record was changed, removed or inserted. Prints where each chain ends; ends with 1 where one is
    broken. Keep what it prints elsewhere: whoever owns the database could write a whole chain anew, and only an earlier
    SEQ:HASH shows that.

    \b
    Examples:
      waystation audit verify
      waystation audit verify --tenant acme --expect 4711:9f2c...
      waystation audit verify --file audit.jsonl
    """
    with told_briefly():
        if expect is not None and tenant is None and file is None:
            raise UsageError("--expect is about one log: name its --tenant or --file")
        from waystation.cli.audit import verify_all

        if not verify_all(config, tenant=tenant, file=file, expect=expect):
            raise typer.Exit(1)
