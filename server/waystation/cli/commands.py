"""The command line as a whole. What the commands do is in modules that are imported when one runs."""

from __future__ import annotations

from typing import Annotated

import typer

from waystation import __version__
from waystation.cli.commands_audit import audit
from waystation.cli.commands_backup import backup, restore
from waystation.cli.commands_bench import bench
from waystation.cli.commands_guards import budget, estimate, kill, level
from waystation.cli.commands_here import dev, doctor, down, up
from waystation.cli.commands_keys import keys
from waystation.cli.commands_ledger import ledger
from waystation.cli.commands_production import encrypt, migrate, serve, worker
from waystation.cli.commands_store import reindex
from waystation.cli.commands_threads import threads
from waystation.cli.commands_webhooks import webhooks
from waystation.cli.terminal import say

app = typer.Typer(
    name="waystation",
    help="""Serve LangGraph graphs behind the LangGraph Platform API, on your own Postgres.

\b
Begin in a folder with a langgraph.json:
  waystation dev                       serve it at http://127.0.0.1:2024, nothing else needed
  waystation up                        API and workers as processes of their own, at port 8123
  waystation doctor                    what is missing on this machine, and what to do about it

\b
In production, with DATABASE_URI set:
  waystation migrate                   bring the schema to this version
  waystation serve --with-worker       one process that does everything
  waystation serve, waystation worker  any number of each; REDIS_URI for live events between them

`waystation COMMAND --help` says more.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"waystation {__version__}")
        raise typer.Exit


@app.callback()
def waystation(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command(short_help="Develop: own Postgres, hot reload, nothing else needed.")(dev)
app.command(short_help="API and workers in processes of their own, on this machine.")(up)
app.command(short_help="Stop what serves this project.")(down)
app.command(short_help="Production: the API, on DATABASE_URI.")(serve)
app.command(short_help="Production: executes runs.")(worker)
app.command(short_help="Bring the schema to this version.")(migrate)
app.command(short_help="Encrypt what was stored plain or with another key.")(encrypt)
app.add_typer(backup, name="backup", short_help="Back up the database, or one tenant; check backups.")
app.command(short_help="Restore a backup.")(restore)
app.add_typer(threads, name="threads", short_help="One thread into a file, and back.")
app.command(short_help="Make the store's vectors anew, for another embedding.")(reindex)
app.add_typer(keys)
app.command(short_help="Stop runs at once, and refuse new ones.")(kill)
app.command(short_help="What is spent of budgets.")(budget)
app.command(short_help="What is offered: full, reduced, minimal, maintenance.")(level)
app.command(short_help="Price a run before running it.")(estimate)
app.add_typer(audit, name="audit", short_help="The audit log: export, verify and prune it.")
app.command(short_help="Check this machine and the project.")(doctor)
app.command(short_help="Measure a running server under load.")(bench)
app.add_typer(webhooks, name="webhooks", short_help="Webhooks that were sent or given up.")
app.add_typer(ledger, name="ledger", short_help="What calls cost, as the guards' ledger has it.")
