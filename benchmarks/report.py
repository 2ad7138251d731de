"""The table that a benchmark ends with. Left out: raw runs, which the JSON beside it holds, and the plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.contestants import CONTESTANTS
from benchmarks.ratios import PHASES
from benchmarks.workload import CASES

TITLES = {contestant.name: contestant.title for contestant in CONTESTANTS.values()}
COLUMNS = ("seconds", *PHASES, "other")


def table(result: Mapping[str, Any]) -> str:
    """Write seconds an update by contestant and case, then every ratio with its spread."""
    lines = ["seconds an update      case " + "".join(f"{name:>10}" for name in COLUMNS) + "   tokens  peak MiB"]
    lines += [
        _seconds(result, who, case)
        for case in CASES
        for who in result["contestants"]
        if case in result["contestants"][who]
    ]
    lines += ["", "TRL's seconds over ours; peak_memory: ours over TRL's      min   median     max"]
    lines += [_ratio(name, result["spread"][name]) for name in result["ratio"]]
    lines += ["  and, not in the headline:"]
    lines += [_ratio(name, result["spread"][name]) for name in result["further"]]
    return "\n".join(lines)


def _seconds(result: Mapping[str, Any], who: str, case: str) -> str:
    found = result["contestants"][who][case]
    columns = "".join(f"{found[name]:10.2f}" for name in COLUMNS)
    return f"{TITLES[who]:<22} {case:<5}{columns}{found['mean_tokens']:9.1f}{found['peak_rss_mib']:10.0f}"


def _ratio(name: str, spread: Mapping[str, float]) -> str:
    return f"{name:<54}{spread['min']:9.2f}{spread['median']:9.2f}{spread['max']:8.2f}"
