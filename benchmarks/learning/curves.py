"""From points of runs to reward at equal KL, and to what may be said about a difference.

A curve is reward over sqrt(KL), in which it is almost straight (Gao et al. 2022): a run's points in the order of their
KL, each averaged with its two neighbours, and straight lines between them. Curves are compared on a grid, even in
sqrt(KL), over the range that every run of the task reaches. A run's `area` is its mean over that grid. Intervals
are Student's, over runs, the variances of both sides pooled.

No torch. Left out: fits, and KL that only some runs reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.evaluate.statistics import student_quantile

GRID = 25
SHOWN = 4
"""Of the grid's steps, so many lie between two rows of the table."""
NEIGHBOURS = 3

Run = Mapping[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """`ours` less `theirs`, and what the difference is called where it is clearly above or below zero."""

    ours: str
    theirs: str
    above: str
    below: str
    level: str


COMPARISONS = (
    Comparison("ours", "trl", "ours is better", "OURS IS WORSE", "no difference beyond the seeds"),
    Comparison("ours_float32", "trl", "ours is better", "OURS IS WORSE", "no difference beyond the seeds"),
    Comparison("ours", "ours_float32", "BF16 IS BETTER", "BF16 IS WORSE", "bf16 and float32 alike within the seeds"),
)


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Return for every task the grid, all curves on it, and the comparisons of the contestants that ran."""
    tasks = dict.fromkeys(run["task"]["name"] for run in runs)
    return {task: summarise_task([run for run in runs if run["task"]["name"] == task]) for task in tasks}


def summarise_task(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare the runs of one task."""
    curves = [read_curve(run["points"]) for run in runs]
    grid = common_grid(curves)
    on_grid: dict[str, list[Floats]] = {}
    for run, curve in zip(runs, curves, strict=True):
        on_grid.setdefault(run["contestant"], []).append(np.interp(grid, *curve))
    compared = [one for one in COMPARISONS if {one.ours, one.theirs} <= set(on_grid)]
    return {
        "kl_nats": _rounded(grid**2),
        "curves": {who: [_rounded(curve) for curve in found] for who, found in on_grid.items()},
        "comparisons": {f"{one.ours} - {one.theirs}": compare(one, grid, on_grid) for one in compared},
        "ends": {who: end_of([run for run in runs if run["contestant"] == who]) for who in on_grid},
    }


def read_curve(points: Sequence[Mapping[str, float]]) -> tuple[Floats, Floats]:
    """Turn a run's points into sqrt(KL), rising, and reward; raises ValueError for fewer than three points."""
    if len(points) < NEIGHBOURS:
        raise ValueError(f"{len(points)} points are no curve; train for at least {NEIGHBOURS - 1} updates")
    figures = np.array(sorted((max(point["kl_nats"], 0.0) ** 0.5, point["reward"]) for point in points))
    root, reward = np.array([figures[max(n - 1, 0) : n + 2].mean(0) for n in range(len(figures))]).T
    return root, reward


def common_grid(curves: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Spread `GRID` values of sqrt(KL) over the range that all curves reach; raises ValueError where there is none."""
    low, high = max(root[0] for root, _ in curves), min(root[-1] for root, _ in curves)
    if low >= high:
        raise ValueError(f"no KL is common to all runs: one begins at {low**2:.2f} nats, one ends at {high**2:.2f}")
    return np.linspace(low, high, GRID)


def compare(one: Comparison, grid: Floats, curves: Mapping[str, Sequence[Floats]]) -> dict[str, Any]:
    """Compare two contestants over the whole grid (`area`) and at some of its KLs (`at_kl`)."""
    ours, theirs = curves[one.ours], curves[one.theirs]
    area = difference([area_of(grid, curve) for curve in ours], [area_of(grid, curve) for curve in theirs])
    at_kl = [
        {"kl_nats": round(float(grid[n] ** 2), 3)}
        | difference([float(curve[n]) for curve in ours], [float(curve[n]) for curve in theirs])
        for n in range(SHOWN, GRID, SHOWN)
    ]
    return {"area": area, "verdict": verdict(one, area), "at_kl": at_kl}


def area_of(grid: Floats, curve: Floats) -> float:
    """Average a curve over the grid, by trapezoids."""
    middles = [(a + b) / 2 for a, b in pairwise(curve.tolist())]
    return float(np.average(middles, weights=np.diff(grid)))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Both means, their difference, and its 95 % interval over runs; None where each side has a single run."""
    means = {"ours": fmean(ours), "theirs": fmean(theirs), "difference": fmean(ours) - fmean(theirs)}
    return {**{name: round(value, 4) for name, value in means.items()}, "ci95": interval(ours, theirs)}


def interval(ours: Sequence[float], theirs: Sequence[float]) -> list[float] | None:
    """Student's 95 % interval of the difference of two means, variances pooled."""
    freedom = len(ours) + len(theirs) - 2
    if freedom < 1:
        return None
    squares = sum(variance(side) * (len(side) - 1) for side in (ours, theirs) if len(side) > 1)
    error = (squares / freedom * (1 / len(ours) + 1 / len(theirs))) ** 0.5
    half = student_quantile(0.975, freedom) * error
    middle = fmean(ours) - fmean(theirs)
    return [round(middle - half, 4), round(middle + half, 4)]


def verdict(one: Comparison, area: Mapping[str, Any]) -> str:
    """Say what an interval says: it lies above zero, below zero, or holds it."""
    if area["ci95"] is None:
        return "one seed, no verdict"
    low, high = area["ci95"]
    return one.above if low > 0 else one.below if high < 0 else one.level


def end_of(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Where the runs of a contestant end: the mean of the last points of each."""
    names = ("reward", "kl_nats", "completion_tokens")
    return {
        name: [round(fmean(point[name] for point in run["points"][-NEIGHBOURS:]), 3) for run in runs] for name in names
    }


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]
