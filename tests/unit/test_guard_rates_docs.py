"""The page on rate limits: its examples run, and its settings are those that there are."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from waystation.catalog.keys_guards import GuardKeys
from waystation.catalog.keys_http_limits import HttpLimitKeys, LimitKeys
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import use_ports
from waystation_guards.rates.rules import ModelRate

PAGE = (Path(__file__).parents[2] / "docs" / "guards" / "rate-limits.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(
    ("example", "says"),
    [(0, "openai/gpt-5 is at its limit"), (1, "hello"), (2, "hello")],
    ids=["graph", "agent", "model"],
)
def test_an_example_runs_as_it_stands(example: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    use_ports(memory_ports())
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(blocks("python")[example], "rate-limits.md", "exec"), names)
    assert says in capsys.readouterr().out


def test_all_examples_are_run() -> None:
    assert len(blocks("python")) == 3


@pytest.mark.parametrize("example", blocks("json"))
def test_a_policy_of_the_page_is_taken(example: str) -> None:
    GuardKeys.model_validate(json.loads(example))


@pytest.mark.parametrize(
    "name",
    [
        *(field.name for field in fields(ModelRate)),
        *(name for keys in (LimitKeys, HttpLimitKeys) for name in keys.model_fields),
    ],
)
def test_every_setting_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE
