"""`waystation threads`: one thread into a file, and back."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from waystation.cli.failures import told_briefly
from waystation.cli.options import Config

threads = typer.Typer(
    help="One thread into a file, and back.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@threads.command("export", short_help="Write a thread with its checkpoints and runs.")
def export(
    thread: Annotated[str, typer.Argument(help="Its id.")],
    file: Annotated[str, typer.Argument(help="Where to; - is standard output.")] = "-",
    config: Config = None,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose it is.")] = "default",
    no_runs: Annotated[bool, typer.Option("--no-runs", help="State and history only.")] = False,
    store: Annotated[
        list[str] | None, typer.Option("--store", help="Also the store items below this namespace.", show_default=False)
    ] = None,
) -> None:
    """Write a thread as lines of JSON. Encrypted values stay encrypted. Needs DATABASE_URI.

    \b
    Example:
      waystation threads export 01a1ff7d-a381-72b5-bbbe-05f48f1fa57b thread.jsonl --store users.u1
    """
    with told_briefly():
        from waystation.cli.thread_files import export_one

        export_one(config, thread, file, tenant=tenant, runs=not no_runs, namespaces=store or [])


@threads.command("import", short_help="Put such a file into a database.")
def import_file(
    file: Annotated[str, typer.Argument(help="What `export` wrote; - is standard input.")],
    config: Config = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose it becomes.", show_default="as it was")] = None,
    new_id: Annotated[bool, typer.Option("--new-id", help="Give it another id, and leave its runs out.")] = False,
    queued: Annotated[Literal["paused", "pending"], typer.Option(help="Its runs that wait.")] = "paused",
) -> None:
    """Put an exported thread into the database of DATABASE_URI, whole or not at all.

    \b
    Examples:
      waystation threads import thread.jsonl
      waystation threads import thread.jsonl --new-id --tenant acme
    """
    with told_briefly():
        from waystation.cli.thread_files import import_one

        import_one(config, file, tenant=tenant, new_id=new_id, queued=queued)
