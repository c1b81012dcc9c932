"""`waystation backup` and `waystation restore`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import Config

Tenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.", show_default="all")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=32, help="Connections that copy at a time.")]
Digest = Annotated[
    str | None, typer.Option("--digest", help="Which backup it has to be, as `backup` said.", show_default="any")
]


class _CreateUnlessNamed(TyperGroup):
    """`waystation backup PLACE` is `waystation backup create PLACE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["create", *args]
        return super().parse_args(ctx, args)


backup = typer.Typer(
    cls=_CreateUnlessNamed,
    help="Back up the database, or one tenant of it, and check backups. `waystation backup PLACE` backs up.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@backup.command("create", short_help="Back up to a folder, a tar file, S3 or standard output.")
def create(
    to: Annotated[str, typer.Argument(metavar="PLACE", help="A folder, FILE.tar, s3://bucket/prefix, or -")],
    config: Config = None,
    tenant: Tenant = None,
    jobs: Jobs = 2,
    part_mb: Annotated[float, typer.Option("--part-mb", min=0.001, max=256, help="Size of a part, before gzip.")] = 4,
) -> None:
    """Back up everything as it is at this moment, while servers go on. Needs DATABASE_URI.

    Interrupted, it is repeated with the same place: parts that are there are not written again.

    \b
    Examples:
      waystation backup /backups/monday
      waystation backup s3://backups/waystation/2026-11-21
      waystation backup --tenant acme acme.tar
      waystation backup - | age -r ... > backup.tar.age
    """
    left = "what was written is no backup" if to == "-" else "repeat the command to go on"
    with told_briefly(interrupted=f"Stopped before its end; {left}"):
        from waystation.cli import backing_up

        backing_up.create(config, to, tenant=tenant, jobs=jobs, part_mb=part_mb)


@backup.command("verify", short_help="Check that a backup is whole.")
def verify(
    source: Annotated[str, typer.Argument(metavar="PLACE", help="Where it is.")],
    digest: Digest = None,
) -> None:
    """Read all of a backup and compare it with its checksums; say what is in it. Needs no database.

    \b
    Example:
      waystation backup verify s3://backups/waystation/2026-11-21
    """
    with told_briefly():
        from waystation.cli import backing_up

        backing_up.verify(source, digest=digest)


def restore(
    place: Annotated[
        str | None,
        typer.Argument(metavar="PLACE", help="A folder, FILE.tar, s3://bucket/prefix, or -", show_default=False),
    ] = None,
    config: Config = None,
    existing: Annotated[
        Literal["refuse", "keep", "replace"],
        typer.Option(
            help="Threads, assistants and so on that are there: keep them or replace them. refuse: any at all."
        ),
    ] = "refuse",
    queued: Annotated[
        Literal["paused", "pending"], typer.Option(help="Runs that wait, crons, webhooks: as they were, or held back.")
    ] = "paused",
    tenant: Tenant = None,
    digest: Digest = None,
    jobs: Jobs = 2,
    release: Annotated[bool, typer.Option("--release", help="Let go on what was restored paused.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Throw away what an interrupted restore left.")] = False,
) -> None:
    """Restore a backup into the database of DATABASE_URI. A database without tables gets them.

    All of it appears in one transaction at the end. Interrupted, it is repeated with the same options and goes on.

    \b
    Examples:
      waystation restore /backups/monday
      waystation restore s3://backups/waystation/2026-11-21 --tenant acme --existing replace
      waystation restore --release
    """
    with told_briefly(interrupted="Stopped before its end; repeat the command to go on"):
        if [place is not None, release, abandon].count(True) != 1:
            raise UsageError("name the place of a backup, or use --release or --abandon alone")
        from waystation.cli import backing_up

        if place is None:
            (backing_up.release if release else backing_up.abandon)(config)
            return
        backing_up.restore(config, place, existing=existing, queued=queued, tenant=tenant, digest=digest, jobs=jobs)
