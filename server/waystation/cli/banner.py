"""What a server says when it is ready: where it is, what it serves, and what to try."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence

from waystation.cli.terminal import paint, say


def ready(url: str, graphs: Mapping[str, str | None], *, seconds: float, notes: Sequence[str] = ()) -> str:
    """The greeting. `graphs` are ids and descriptions, `notes` lines of one's own below the addresses."""
    first = next(iter(graphs), "agent")
    body = {
        "assistant_id": first,
        "input": {"messages": [{"role": "user", "content": "Hello!"}]},
        "stream_mode": "messages-tuple",
    }
    lines = [
        "",
        f"  {paint('Waystation', 'bold')} is ready in {seconds:.1f} s",
        "",
        f"  API      {paint(url, 'cyan')}",
        f"  Docs     {paint(url + '/docs', 'cyan')}",
        *(f"  {note}" for note in notes),
        "",
        *_graph_lines(graphs),
        "",
        "  Three things to try:",
        "",
        "  1  Stream a run",
        f"     curl -N {url}/runs/stream -H 'content-type: application/json' \\",
        f"       -d '{json.dumps(body)}'",
        "  2  The Python SDK (pip install langgraph-sdk)",
        f'     client = langgraph_sdk.get_sync_client(url="{url}")',
        f'     client.runs.wait(None, "{first}", input={json.dumps(body["input"])})',
        "  3  A chat in the browser: Agent Chat UI, or useStream of @langchain/langgraph-sdk/react",
        f'     apiUrl "{url}", assistantId "{first}"',
        "",
    ]
    return "\n".join(lines)


def warnings(sentences: Sequence[str]) -> None:
    """What the project's file says that has no effect, or not the intended one."""
    for sentence in sentences:
        say(f"{paint('Warning:', 'yellow')} {sentence}", err=True)


def open_browser(url: str, environ: Mapping[str, str]) -> None:
    """Show `url` to a person who sits at a graphical terminal; for anybody else, and on any trouble, do nothing."""
    graphical = sys.platform == "darwin" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    if not (sys.stdout.isatty() and graphical) or environ.get("CI"):
        return

    def attempt() -> None:
        try:
            webbrowser.open(url)
        except Exception:  # a browser is a courtesy
            return

    threading.Thread(target=attempt, daemon=True).start()


def _graph_lines(graphs: Mapping[str, str | None]) -> list[str]:
    width = max((len(name) for name in graphs), default=0)
    room = max(40, shutil.get_terminal_size((120, 20)).columns - width - 13)
    lines = [f"{paint(name.ljust(width), 'bold')}  {_shortened(text or '', room)}" for name, text in graphs.items()]
    return [f"  {'Graphs ' if i == 0 else '       '}  {line}".rstrip() for i, line in enumerate(lines)]


def _shortened(text: str, room: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"
