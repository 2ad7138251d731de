"""Draw what was learned: reward against KL, one panel a task, thin lines for seeds, a bold one for their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.learning.curves import read_curve
from benchmarks.learning.runs import CONTESTANTS

COLOURS = {"trl": "#e45756", "ours_float32": "#72b7b2", "ours": "#4c78a8"}


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Write `file`, a PNG."""
    tasks = result["tasks"]
    figure = Figure(figsize=(7 * len(tasks), 5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        _panel(axes, name, tasks[name], [run for run in result["runs"] if run["task"]["name"] == name])
    figure.savefig(file, dpi=120, metadata={"Software": None})


def _panel(axes: Axes, name: str, task: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> None:
    for run in runs:
        axes.plot(*read_curve(run["points"]), color=COLOURS[run["contestant"]], lw=0.8, alpha=0.6)
    roots = np.sqrt(task["kl_nats"])
    for who, curves in task["curves"].items():
        axes.plot(roots, np.mean(curves, axis=0), color=COLOURS[who], lw=3, label=CONTESTANTS[who].title)
    axes.axvspan(roots[0], roots[-1], color="black", alpha=0.05, lw=0)
    ticks = np.arange(0, axes.get_xlim()[1], 0.5)
    axes.set_xticks(ticks, [f"{tick**2:g}" for tick in ticks])
    axes.set_xlabel("KL to the reference, nats a completion (square-root scale)")
    axes.set_ylabel("reward, without the KL penalty")
    settings = runs[0]["task"]
    title = f"{name}: {settings['updates']} updates of {settings['batch']} completions, {len(runs)} runs"
    axes.set_title(title + "\nshaded: the KL that all of them reach")
    axes.legend(frameon=False, loc="lower right")
