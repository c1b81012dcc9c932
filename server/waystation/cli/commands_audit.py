"""`waystation audit`: the audit log, straight on the database."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import Config

audit = typer.Typer(
    help="The audit log: export it, verify that nobody changed it, prune what is old.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]
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
    file: Annotated[
        list[Path] | None,
        typer.Option(help="An export or archive to verify, instead of the database. Several: in order."),
    ] = None,
    archive: Annotated[
        list[Path] | None,
        typer.Option(help="What was pruned, verified with what is in the database as one chain. Several: in order."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(help="SEQ:HASH before the first record of --file or --archive, if that is not record 1."),
    ] = None,
    expect: Annotated[
        str | None, typer.Option(help="SEQ:HASH, as an earlier verify printed it: this record must still be there.")
    ] = None,
) -> None:
    """Verify that no record was changed, removed or inserted. Prints where each chain ends; ends with 1 where one is
    broken. Keep what it prints elsewhere: whoever owns the database could write a whole chain anew, and only an earlier
    SEQ:HASH shows that. Where `prune` has removed a chain's beginning, it goes on from there.

    \b
    Examples:
      waystation audit verify
      waystation audit verify --tenant acme --expect 4711:9f2c...
      waystation audit verify --file audit.jsonl
      waystation audit verify --tenant acme --archive 2025.jsonl --archive 2026.jsonl
    """
    with told_briefly():
        if expect is not None and tenant is None and not file:
            raise UsageError("--expect is about one log: name its --tenant or --file")
        if archive and (tenant is None or file):
            raise UsageError("--archive is about one log in the database: name its --tenant, and no --file")
        if after is not None and not file and not archive:
            raise UsageError("--after is about the first record of a --file or an --archive")
        from waystation.cli.audit import Verifying, verify_all

        asked = Verifying(tenant=tenant, files=file or (), archives=archive or (), after=after, expect=expect)
        if not verify_all(config, asked):
            raise typer.Exit(1)


@audit.command(short_help="Remove what is old; the rest stays verifiable.")
def prune(
    config: Config = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose log.", show_default="all tenants'")] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=MOMENTS, metavar="DATE", help="Records before this time, in UTC.", show_default=False),
    ] = None,
    older_than: Annotated[
        int | None,
        typer.Option(min=1, max=36500, help="Records of days before so many whole ones.", show_default=False),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="A new file for what is removed, for one --tenant.", show_default=False)
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, and not only say what would go.")] = False,
) -> None:
    """Verify the beginning of each chain up to a time, and remove it. What stays has an anchor: the number and hash of
    the last record that went, when, and by whom; a record of the chain, `audit.pruned`, says so, too. Ends with 1,
    and removes nothing of it, where a chain is broken. Servers may write meanwhile.

    \b
    Examples:
      waystation audit prune --older-than 365
      waystation audit prune --tenant acme --before 2026-01-01 --archive acme-2025.jsonl --apply
      waystation audit verify --tenant acme --archive acme-2025.jsonl
    """
    with told_briefly():
        if (before is None) == (older_than is None):
            raise UsageError("say up to when: either --before DATE or --older-than DAYS")
        if archive is not None and tenant is None:
            raise UsageError("--archive is of one log: name its --tenant")
        from waystation.cli.audit_pruning import Pruning, prune_all

        asked = Pruning(tenant=tenant, before=before, older_than=older_than, archive=archive, apply=apply)
        if not prune_all(config, asked):
            raise typer.Exit(1)
