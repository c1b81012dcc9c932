"""Queries as the dashboards ask them."""

from __future__ import annotations

from typing import Final

BY: Final = 'namespace=~"$namespace", pod=~"$pod"'
"""What every query is narrowed by. Figures of the queue are the same on all processes: `max`, never `sum`."""


def rate(metric: str, by: str = "", more: str = "") -> str:
    """How often a second, summed over processes."""
    return f"sum by ({by}) (rate({metric}{{{BY}{more}}}[$__rate_interval]))"


def share(metric: str, part: str, by: str = "") -> str:
    """The part of a counter's rate that `part` selects; 0, and not nothing, while there is none of it."""
    whole = rate(metric, by)
    return f"({rate(metric, by, ', ' + part)} or {whole} * 0) / ({whole} > 0)"


def quantile(share_: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share_}, {rate(metric + '_bucket', labels)})"


def quantiles(metric: str, by: str = "", *shares: float) -> list[tuple[str, str]]:
    """Quantiles of a histogram, one line each."""
    legend = f" {{{{{by}}}}}" if by else ""
    return [(quantile(one, metric, by), f"p{one * 100:g}{legend}") for one in shares or (0.5, 0.95, 0.99)]


def grown(metric: str, by: str = "", more: str = "") -> str:
    """By how much a counter grew in the time shown."""
    return f"sum by ({by}) (increase({metric}{{{BY}{more}}}[$__range]))"


def largest(metric: str, by: str = "") -> str:
    """The largest value that a process tells."""
    return f"max by ({by}) ({metric}{{{BY}}})"


def total(metric: str, by: str = "") -> str:
    """The sum over processes."""
    return f"sum by ({by}) ({metric}{{{BY}}})"
