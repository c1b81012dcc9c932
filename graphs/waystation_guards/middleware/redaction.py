"""Redaction of messages, built on LangChain's `PIIMiddleware`, with our detectors and their check digits.

    agent = create_agent(model, tools, middleware=[*pii_middleware(Redactor(kinds=("email", "iban")))])

It changes the state: what was taken out is gone for the model and for whoever reads the thread.
"""

from __future__ import annotations

from typing import Any, Literal

from langchain.agents.middleware import PIIMiddleware
from langchain.agents.middleware.pii import PIIMatch

from waystation_guards.redaction.redaction import DEFAULT, Redactor


def pii_middleware(
    redactor: Redactor = DEFAULT,
    *,
    strategy: Literal["block", "redact", "mask", "hash"] | None = None,
    input: bool = True,
    output: bool = False,
    tool_results: bool = True,
) -> list[PIIMiddleware[Any, Any]]:
    """LangChain's middleware for each kind and pattern of a redactor.

    `strategy`: LangChain's, the redactor's if there is none (LangChain's hashes have no key). `input`, `output`,
    `tool_results`: whose messages.
    """
    names = [*redactor.kinds, *redactor.patterns]
    return [
        PIIMiddleware(
            name,
            strategy=strategy or redactor.strategy,
            detector=_detector(redactor, name),
            apply_to_input=input,
            apply_to_output=output,
            apply_to_tool_results=tool_results,
        )
        for name in names
    ]


def _detector(redactor: Redactor, name: str) -> Any:
    def detect(text: str) -> list[PIIMatch]:
        return [
            PIIMatch(type=name, value=one.value, start=one.start, end=one.end)
            for one in redactor.find(text)
            if one.kind == name
        ]

    return detect
