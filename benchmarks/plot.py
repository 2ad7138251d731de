"""Draw a comparison: where an update's seconds go, and the ratios with their spread. Left out: learning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.ratios import PHASES
from benchmarks.report import TITLES
from benchmarks.workload import CASES

COLOURS = {"generate": "#4c78a8", "score": "#72b7b2", "optimise": "#e45756", "other": "#8c8c8c"}


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Write `file`, a PNG."""
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    *panels, right = figure.subplots(1, len(CASES) + 1)
    for axes, case in zip(panels, CASES, strict=True):
        _phases(axes, result, case)
    panels[0].legend(frameon=False)
    _ratios(right, result)
    figure.suptitle(f"One PPO update of {result['workload']['prompts']} prompts on {result['machine']['processor']}")
    figure.savefig(file, dpi=120, metadata={"Software": None})


def _phases(axes: Axes, result: Mapping[str, Any], case: str) -> None:
    """Stack the phases of every contestant that took the case."""
    contestants = {who: by_case[case] for who, by_case in result["contestants"].items() if case in by_case}
    found = list(contestants.values())
    bottom = [0.0] * len(found)
    for phase in (*PHASES, "other"):
        heights = [one[phase] for one in found]
        axes.bar(range(len(found)), heights, bottom=bottom, color=COLOURS[phase], label=phase)
        bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
    axes.set_xticks(range(len(found)), [TITLES[who].replace(" ", "\n") for who in contestants])
    axes.set_ylabel("seconds")
    axes.set_title(f"{case}: {found[0]['mean_tokens']:.0f} tokens a completion")


def _ratios(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draw the headline ratios, with bars from their smallest to their largest sample."""
    names = list(result["ratio"])[::-1]
    spreads = [result["spread"][name] for name in names]
    middles = [spread["median"] for spread in spreads]
    below = [spread["median"] - spread["min"] for spread in spreads]
    above = [spread["max"] - spread["median"] for spread in spreads]
    axes.barh(names, middles, xerr=[below, above], color="#54a24b", ecolor="black")
    axes.axvline(1, color="black", lw=1)
    axes.set_title("TRL's seconds over ours\n(memory: ours over TRL's)")
