"""The table that the comparison ends with. Left out: raw runs, which the JSON beside it holds, and the plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(result: Mapping[str, Any]) -> str:
    """Write every comparison: at some KLs, over all of them, and what may be said."""
    lines = []
    for task, found in result["tasks"].items():
        for name, comparison in found["comparisons"].items():
            ours, theirs = name.split(" - ")
            lines.append(f"{task + ', reward at KL':<24}{ours:>14}{theirs:>14}    difference, 95 % over seeds")
            lines += [_row(f"{point['kl_nats']:.2f} nats", point) for point in comparison["at_kl"]]
            lines += [f"{_row('all of it', comparison['area'])}   {comparison['verdict']}", ""]
    return "\n".join(lines)


def _row(name: str, point: Mapping[str, Any]) -> str:
    bounds = "" if point["ci95"] is None else f" [{point['ci95'][0]:+.3f}, {point['ci95'][1]:+.3f}]"
    return f"{name:>24}{point['ours']:14.3f}{point['theirs']:14.3f}    {point['difference']:+.3f}{bounds}"
