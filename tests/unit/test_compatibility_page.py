"""docs/compatibility.md names every operation there is."""

from __future__ import annotations

from unit.compatibility_page import PAGE, with_table


def test_the_page_names_every_operation() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "write it anew: python -m tests.unit.compatibility_page"
