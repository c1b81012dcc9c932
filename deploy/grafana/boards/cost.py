"""What models cost, what caches save, and how far budgets are."""

from __future__ import annotations

from typing import Final

from panels import Board, Panel, Row
from queries import grown, rate

_SPENT: Final = "waystation_guard_spent_dollars_total"
_SUCCEEDED: Final = grown("waystation_runs_finished_total", "", ', outcome="success"')
_HOUR: Final = 'sum(namespace:waystation_guard_spent_dollars:increase1h{namespace=~"$namespace"}'
_BUDGET: Final = "tenant, scope, unit, window"
_OF: Final = '{namespace=~"$namespace", tenant=~"$tenant"}'

COST = Board(
    uid="waystation-cost",
    title="Waystation / Cost",
    about="What models cost, what caches save, and how far budgets are.",
    variables={
        "model": 'label_values(waystation_model_calls_total{namespace=~"$namespace"}, model)',
        "tenant": 'label_values(waystation_guard_budget_spent{namespace=~"$namespace"}, tenant)',
    },
    rows=[
        Row(title="In the time shown", panels=[
            Panel(title="Spent", kind="stat", unit="currencyUSD", width=4, height=4, runbook="cost-spike",
                  queries=[(grown(_SPENT), "")], about="Dollars that model calls came to."),
            Panel(title="Saved by caches", kind="stat", unit="currencyUSD", width=4, height=4,
                  queries=[(grown("waystation_guard_saved_dollars_total"), "")],
                  about="What answers from caches would have cost."),
            Panel(title="For a successful run", kind="stat", unit="currencyUSD", width=4, height=4,
                  queries=[(f"{grown(_SPENT)} / ({_SUCCEEDED} > 0)", "")],
                  about="Dollars over successful runs."),
            Panel(title="Last hour against the day before", kind="stat", unit="percentunit", width=4, height=4,
                  above=(2, 3),
                  runbook="cost-spike",
                  queries=[(f"{_HOUR}) / ({_HOUR} offset 1d) > 0)", "")],
                  about="The last hour over the same hour of the day before. Empty without one."),
            Panel(title="Tokens", kind="stat", width=4, height=4,
                  queries=[(grown("waystation_model_tokens_total", "kind", ', model=~"$model"'), "{{kind}}")],
                  about="As the providers counted."),
            Panel(title="Runs killed", kind="stat", width=4, height=4, above=(1, 10), runbook="cost-spike",
                  queries=[(grown("waystation_runs_killed_total"), "")], about="Runs that the kill switch stopped."),
        ]),
        Row(title="Dollars", panels=[
            Panel(title="Dollars an hour by model", unit="currencyUSD", stacked=True, runbook="cost-spike",
                  queries=[(f"{rate(_SPENT, 'model')} * 3600", "{{model}}")], about="What each model comes to."),
            Panel(title="Dollars an hour by tenant", unit="currencyUSD", stacked=True, runbook="cost-spike",
                  queries=[(f"{rate(_SPENT, 'tenant')} * 3600", "{{tenant}}")],
                  about="Tenants that `waystation.guards.metrics.tenants` names; the others are `other`."),
            Panel(title="Each hour, and the day before", unit="currencyUSD", runbook="cost-spike",
                  queries=[(f"{_HOUR})", "the last hour"),
                           (f"{_HOUR} offset 1d)", "a day before")],
                  about="The alert of cost spikes compares these."),
            Panel(title="Tokens by model", unit="count:tokens/s", runbook="cost-spike",
                  queries=[(rate("waystation_model_tokens_total", "model, kind", ', model=~"$model"'),
                            "{{model}} {{kind}}")],
                  about="Tokens a second: input, output, and the part of the input from the provider's cache."),
            Panel(title="Calls of models for each run", runbook="cost-spike",
                  queries=[(f"{rate('waystation_model_calls_total')} / ({rate('waystation_runs_finished_total')} > 0)",
                            "calls")],
                  about="Rises when agents go round in circles."),
            Panel(title="Answers from caches", unit="ops",
                  queries=[(rate("waystation_guard_cache_hits_total", "layer"), "{{layer}}")],
                  about="By the kind of cache."),
        ]),
        Row(title="Budgets", panels=[
            Panel(title="Nearest to its end", kind="bargauge", unit="percentunit", width=12, above=(0.8, 0.95), most=1,
                  runbook="cost-spike",
                  queries=[(f"max by ({_BUDGET}) (waystation_guard_budget_used_most_ratio{_OF})",
                            "{{tenant}}: a {{scope}}, {{window}}, {{unit}}")],
                  about="The part of a limit that the owner who has used most of it has spent or holds."),
            Panel(title="Spent and held", width=12, runbook="cost-spike",
                  queries=[(f"max by ({_BUDGET}) (waystation_guard_budget_spent{_OF})",
                            "spent {{tenant}} {{scope}} {{window}} {{unit}}"),
                           (f"max by ({_BUDGET}) (waystation_guard_budget_held{_OF})",
                            "held {{tenant}} {{scope}} {{window}} {{unit}}")],
                  about="In the present windows, in the unit of the limit."),
            Panel(title="Thresholds that were passed", unit="ops", width=12, runbook="cost-spike",
                  queries=[(rate("waystation_guard_alerts_total", "scope"), "{{scope}}")], about="Alerts of budgets."),
            Panel(title="Refusals by policies", unit="ops", width=12, runbook="cost-spike",
                  queries=[(rate("waystation_guard_refusals_total", "code"), "{{code}}")],
                  about="Calls of models and tools that a policy refused."),
        ]),
    ],
)  # fmt: skip
