"""Models and tools: do they answer, and how fast."""

from __future__ import annotations

from typing import Final

from panels import Board, Panel, Row
from queries import largest, quantiles, rate, share

_MODEL: Final = ', model=~"$model"'
_CALLING: Final = rate("waystation_model_call_duration_seconds_sum", "model", _MODEL)
_OUTPUT: Final = rate("waystation_model_tokens_total", "model", ', kind="output"' + _MODEL)

PROVIDERS = Board(
    uid="waystation-providers",
    title="Waystation / Providers",
    about="Models and tools: do they answer, how fast, and what happens when they do not.",
    variables={
        "model": 'label_values(waystation_model_calls_total{namespace=~"$namespace"}, model)',
        "tool": 'label_values(waystation_tool_calls_total{namespace=~"$namespace"}, tool)',
    },
    rows=[
        Row(title="Models", panels=[
            Panel(title="Calls by outcome", unit="ops", stacked=True, runbook="provider-outage",
                  queries=[(rate("waystation_model_calls_total", "outcome", _MODEL), "{{outcome}}")],
                  about="Calls that ended, a second."),
            Panel(title="Calls by model", unit="ops",
                  queries=[(rate("waystation_model_calls_total", "model", _MODEL), "{{model}}")],
                  about="Calls that ended, a second."),
            Panel(title="Failed calls by model", unit="percentunit",
                  above=(0.05, 0.2), most=1, runbook="provider-outage",
                  queries=[(share("waystation_model_calls_total", 'outcome="error"', "model"), "{{model}}")],
                  about="Part of the calls that raised."),
            Panel(title="Duration by model, median", unit="s", runbook="provider-outage",
                  queries=quantiles("waystation_model_call_duration_seconds", "model", 0.5),
                  about="Half of the calls took less."),
            Panel(title="Duration by model, slowest", unit="s", runbook="provider-outage",
                  queries=quantiles("waystation_model_call_duration_seconds", "model", 0.95, 0.99),
                  about="One of twenty and one of a hundred took longer."),
            Panel(title="Output tokens a second of calling", unit="count:tokens/s", runbook="provider-outage",
                  queries=[(f"{_OUTPUT} / ({_CALLING} > 0)", "{{model}}")],
                  about="Falls before a provider fails: it queues."),
        ]),
        Row(title="Breakers and levels", panels=[
            Panel(title="Open breakers", most=1, above=(0.5, 1), runbook="provider-outage",
                  queries=[(largest("waystation_guard_breaker_open", "target"), "{{target}}")],
                  about="Targets that are not called for now, on all processes."),
            Panel(title="Changes of breakers", unit="ops", runbook="provider-outage",
                  queries=[(rate("waystation_guard_breaker_changes_total", "target, event"), "{{target}} {{event}}")],
                  about="Opened and closed by calls."),
            Panel(title="Level", most=3, above=(1, 2), runbook="provider-outage",
                  queries=[(largest("waystation_guard_level"), "level")],
                  about="0 is full, 1 reduced, 2 minimal, 3 maintenance."),
        ]),
        Row(title="Tools", panels=[
            Panel(title="Calls by tool", unit="ops",
                  queries=[(rate("waystation_tool_calls_total", "tool", ', tool=~"$tool"'), "{{tool}}")],
                  about="Calls that ended, a second."),
            Panel(title="Failed calls by tool", unit="percentunit", above=(0.1, 0.5), most=1, runbook="provider-outage",
                  queries=[(share("waystation_tool_calls_total", 'outcome="error"', "tool"), "{{tool}}")],
                  about="Part of the calls that raised, or answered with an error."),
            Panel(title="Duration by tool", unit="s",
                  queries=quantiles("waystation_tool_call_duration_seconds", "tool", 0.5, 0.95),
                  about="How long calls took."),
        ]),
    ],
)  # fmt: skip
