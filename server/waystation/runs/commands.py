"""A client's command as LangGraph knows it."""

from __future__ import annotations

from typing import Any, cast

from langgraph.types import Command, Send

from waystation.runs.requests import CommandBody, SendTo


def to_command(body: CommandBody) -> Command[Any]:
    """The `Command` for what a client sent: pairs become tuples, nodes with an input become sends."""
    goto = body.goto
    targets = goto if isinstance(goto, list) else [] if goto is None else [goto]
    sends = [Send(target.node, target.input) if isinstance(target, SendTo) else target for target in targets]
    return Command(resume=body.resume, update=_update(body.update), goto=cast("Any", sends))


def _update(update: dict[str, Any] | list[list[Any]] | None) -> Any:
    return [tuple(pair) for pair in update] if isinstance(update, list) else update
