"""The whole surface of the official Python client, what of it is tested, and the page that says so."""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import Any, Final

from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk._async import stream as async_stream  # pyright: ignore[reportPrivateUsage]
from langgraph_sdk._sync import stream as sync_stream  # pyright: ignore[reportPrivateUsage]

from e2e import (
    sdk_runs_started,
    sdk_uses_assistants,
    sdk_uses_crons,
    sdk_uses_runs,
    sdk_uses_store,
    sdk_uses_streams,
    sdk_uses_threads,
)
from e2e.sdk_entries import ENTRIES, KINDS, Entry
from e2e.sdk_kinds import RESOURCES, STREAM_PARTS, public_names

SCENARIOS: Final = (
    sdk_uses_assistants,
    sdk_uses_threads,
    sdk_uses_streams,
    sdk_runs_started,
    sdk_uses_runs,
    sdk_uses_crons,
    sdk_uses_store,
)
EVERYWHERE: Final = frozenset({"self", "headers", "params"})
"""Sent with every call of every scenario, see `sdk_kinds`: entries need not name them."""

NOT_TESTED: Final = {
    "subgraph.extensions": "no graph of the tests has a transformer that adds a channel inside a subgraph",
    "subgraph.messages": "the client finds grandchildren by `tasks` events, which the reference does not send either",
    "subgraph.subagents": "as `subgraph.messages`",
    "subgraph.subgraphs": "as `subgraph.messages`",
    "subgraph.tool_calls": "no graph of the tests calls a tool inside a subgraph",
    "threads.stream:headers": "the client's own: they go with each of the stream's requests",
}
"""What needs no test, and why: attributes by path, arguments as `path:argument`."""

Surface = dict[str, inspect.Signature | None]
"""Each public method with its signature, each public attribute with none, by its path."""


async def surface(kind: str) -> Surface:
    """What a client of a kind has; needs a running loop, because a tool call's handle makes a future."""
    client: Any = (get_client if kind == "async" else get_sync_client)(url="http://127.0.0.1:9")
    module: Any = async_stream if kind == "async" else sync_stream
    prefix = "" if kind == "async" else "Sync"
    found: Surface = {}
    for resource in RESOURCES:
        found |= _members(getattr(client, resource), f"{resource}.")
    found |= {path: known for path, known in _members(client, "").items() if path not in RESOURCES}
    stream = client.threads.stream(assistant_id="steps")
    found |= _members(stream, "stream.")
    for part in STREAM_PARTS:
        if part in vars(stream):
            found |= _members(vars(stream)[part], f"stream.{part}.")
    child = getattr(module, f"{prefix}ScopedStreamHandle")(
        thread=stream, path=("a:b",), graph_name="a", trigger_call_id="b"
    )
    found |= _members(child, "subgraph.")
    found |= _members(getattr(module, f"{prefix}ToolCallHandle")(tool_call_id="t", name="n"), "tool_call.")
    if kind == "async":
        await client.aclose()
    else:
        client.close()
    return found


def _members(of: Any, prefix: str) -> Surface:
    found: Surface = {}
    for name in public_names(of):
        static = inspect.getattr_static(of, name)
        found[prefix + name] = inspect.signature(static) if inspect.isroutine(static) else None
    for inner in ("client", "http"):  # httpx's client, and the SDK's HTTP client under each resource
        if prefix:
            found.pop(prefix + inner, None)
    return found


def entries(kind: str) -> dict[str, list[Entry]]:
    """The table, for clients of a kind."""
    table: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in ENTRIES:
        if kind in entry.kinds:
            table[entry.path].append(entry)
    return dict(table)


# the page -------------------------------------------------------------------------------------------------------------
_INTRODUCTION = """# The official Python client

Every public method of `langgraph_sdk` (but those whose row says no and why), for `get_client()` and
`get_sync_client()`, is called against a running server in `tests/e2e/test_sdk_surface.py`: with every argument that it
takes, over both kinds of client, and with a look at what came of it. A new release of the SDK that has a method or an
argument more fails that test until it is covered.
The table is generated; write it anew with
`PYTHONPATH=tests python -m e2e.sdk_surface > docs/sdk.md`.

`stream.` is what `client.threads.stream(...)` gives, `subgraph.` and `tool_call.` what its projections give;
those without parentheses are attributes. A dash is what this kind of client does not have.

- `stream.interrupts` has `None` as each `value`: the SDK looks for a member that the protocol calls `payload`. Its
  `interrupt_id` is right; what was asked is in `threads.get_state()`.
- `feedback_keys` and `langsmith_tracing` are accepted; there is no tracing product behind this server.
"""


async def page() -> str:
    """docs/sdk.md."""
    kinds = {kind: await surface(kind) for kind in KINDS}
    tables = {kind: entries(kind) for kind in KINDS}
    rows = ["| method | async | sync | tested |", "| --- | --- | --- | --- |"]
    for path in sorted({path for found in kinds.values() for path in found}):
        signature = next(found[path] for found in kinds.values() if path in found)
        cells = ["yes" if path in kinds[kind] else "–" for kind in KINDS]
        names = {entry.name.replace("_", " ") for table in tables.values() for entry in table.get(path, [])}
        said = "; ".join(sorted(names)) or f"no: {NOT_TESTED[path]}"
        rows.append(f"| `{path}{'()' if signature else ''}` | {' | '.join(cells)} | {said} |")
    return "\n".join([_INTRODUCTION, *rows, ""])


if __name__ == "__main__":
    import asyncio
    import sys

    sys.stdout.write(asyncio.run(page()))
