"""Writes the table of operations in docs/compatibility.md anew:   python -m tests.unit.compatibility_page

What is an operation of the platform, and what is ours alone, is known to the test of the OpenAPI document.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from unit.test_openapi_document import EVERY, PROTOCOL  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
BEGIN, END = "<!-- operations -->\n", "<!-- end of operations -->\n"

BY_HAND = {
    ("GET", "/docs"): "A page to read and try the API",
    ("POST", "/mcp"): "Every assistant as an MCP tool",
    ("GET", "/mcp"): "405: answers stream on the request itself, there is no stream to resume",
    ("DELETE", "/mcp"): "405: a session is only a name here, there is nothing to end",
}
"""Operations that the OpenAPI document does not describe."""


def table() -> str:
    """The operations of the platform, then those of ours, as lines of Markdown."""
    described = {(method, path): spec["summary"] for method, path, spec in EVERY}
    theirs = {key: described.get(key) or BY_HAND[key] for key in PROTOCOL}
    ours = {key: summary for key, summary in described.items() if key not in PROTOCOL}
    lines = ["| operation | what it does | |", "|---|---|---|"]
    for title, operations in (("platform", theirs), ("Waystation's own", ours)):
        lines += [f"| `{method} {path}` | {summary} | {title} |" for (method, path), summary in operations.items()]
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
