"""`waystation kill`, `budget`, `level` and `estimate`: what an operator needs at night."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from waystation.cli.failures import UsageError, told_briefly
from waystation.cli.options import Config

Tenant = Annotated[str | None, typer.Option("--tenant", help="Of this tenant; alone, all that it has.")]


def kill(
    tenant: Tenant = None,
    graph: Annotated[str | None, typer.Option(help="This graph's runs.")] = None,
    assistant: Annotated[str | None, typer.Option(help="This assistant's runs: its UUID.")] = None,
    user: Annotated[str | None, typer.Option(help="What this identity asked for.")] = None,
    key: Annotated[str | None, typer.Option(help="What came with this API key: its id, or the key itself.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything, of all tenants.")] = False,
    reason: Annotated[str, typer.Option(help="Shown to whoever is stopped.")] = "",
    for_: Annotated[
        str | None, typer.Option("--for", help="Such as 30m, 12h or 2d.", show_default="until it is lifted")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what is stopped.")] = False,
    lift: Annotated[str | None, typer.Option(help="Let go on what this kill stopped: an id of the list.")] = None,
    config: Config = None,
) -> None:
    """Stop all pending and running runs of a tenant, graph, assistant, user or API key, and refuse new ones.

    In force in all processes within about a second, and until it is lifted, also over restarts. Without --tenant a
    graph, assistant or user is stopped for all tenants. Needs DATABASE_URI and no running server.

    \b
    Examples:
      waystation kill --tenant acme --reason "unpaid" --for 12h
      waystation kill --graph research
      waystation kill --list
      waystation kill --lift 6569c32e-ccc0-4747-858d-8d5b8779e1c5
    """
    with told_briefly():
        named = {"graph": graph, "assistant": assistant, "user": user, "key": key}
        chosen = [(scope, owner) for scope, owner in named.items() if owner]
        wants = (bool(chosen or tenant or everything), list_, lift is not None)
        if sum(wants) != 1 or len(chosen) > 1 or (everything and (chosen or tenant)):
            raise UsageError("name one: --tenant, --graph, --assistant, --user, --key, --all; or --list, or --lift")
        from waystation.cli.guards import lift_kill, list_kills, stop

        if list_:
            list_kills(config)
        elif lift is not None:
            lift_kill(config, kill_id=lift)
        else:
            scope, owner = chosen[0] if chosen else ("tenant", tenant or "*")
            stop(config, tenant=tenant, scope=scope, owner=owner, reason=reason, for_=for_)


def level(
    wanted: Annotated[
        str | None, typer.Argument(help="full, reduced, minimal, maintenance, or auto for the rules to decide.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Whose levels.", show_default="waystation.guards.levels.name")
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="Such as 30m, 12h or 2d.", show_default="until it is taken back")
    ] = None,
    reason: Annotated[str, typer.Option(help="Shown beside the level.")] = "",
    config: Config = None,
) -> None:
    """Show what is offered, or set it: for all processes, on DATABASE_URI (and REDIS_URI where servers use it).

    \b
    Examples:
      waystation level
      waystation level reduced --for 2h --reason "the provider is slow"
      waystation level auto
    """
    with told_briefly():
        from waystation.cli.guards_level import run

        run(config, wanted=wanted, name=name, for_=for_, reason=reason)


def estimate(
    assistant: Annotated[str, typer.Argument(help="An assistant's UUID, or a graph's name.")],
    input_: Annotated[str, typer.Option("--input", "-i", help="JSON; @FILE reads a file.")] = "{}",
    url: Annotated[str, typer.Option(help="A server that is up.")] = "http://127.0.0.1:2024",
    thread: Annotated[str | None, typer.Option(help="A thread that the run would go on with.")] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", envvar="WAYSTATION_API_KEY", help="An API key, where the server asks for one."),
    ] = None,
) -> None:
    """Say what a run will come to, before it is run: from its input and from past runs of its graph.

    \b
    Example:
      waystation estimate agent --input '{"messages": [{"role": "user", "content": "hi"}]}'
    """
    with told_briefly():
        from waystation.cli.guards_estimate import run

        run(url, assistant=assistant, text=input_, thread=thread, key=key)


def budget(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose budgets.")] = "default",
    scope: Annotated[
        Literal["run", "thread", "assistant", "graph", "user", "key", "tenant"] | None,
        typer.Option(help="Only budgets of this kind.", show_default="all"),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only this run's, user's …", show_default="all")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    config: Config = None,
) -> None:
    """Show what is spent and held of budgets in their present windows, those first that spent most.

    \b
    Example:
      waystation budget --tenant acme --scope user
    """
    with told_briefly():
        from waystation.cli.guards import show_budgets

        show_budgets(config, tenant=tenant, scope=scope, owner=owner, limit=limit)
