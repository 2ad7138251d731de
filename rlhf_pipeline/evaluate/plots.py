"""Draw evaluation.json and the frontier of reward against KL. The one module that imports matplotlib for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import isnan, nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_pipeline.evaluate.report import split_names

COLOURS = ("#8c8c8c", "#4c78a8", "#72b7b2", "#e45756", "#54a24b", "#b279a2", "#f58518")
GROUP = 0.8
"""Share of a group's room that its bars take."""


def draw_evaluation(report: Mapping[str, Any]) -> bytes:
    """Scores of the models by split, with intervals, and win rates beside: a PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    by_judge = report["compared_by"] == "judge"
    _bars(left, report, by_judge)
    temperature = f"temperature {report['temperature']:g}"
    left.set_ylabel("judge's score of 100" if by_judge else "reward model's score")
    left.set_title(f"{report['run']}: {temperature}, 95 % intervals")
    _win_rates(right, report)
    return png(figure)


def draw_frontier(frontier: Mapping[str, Any]) -> bytes:
    """Proxy reward and judge's score against KL, one line a run: a PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (("reward", "proxy: the reward model's score"), ("judge", "truth: the judge's score of 100"))
    for ax, (name, title) in zip(axes, panels, strict=True):
        for (run, found), colour in zip(frontier["runs"].items(), COLOURS[1:], strict=False):
            points = [(one["kl_nats"], one[name]) for one in found["points"] if one[name] is not None]
            label = f"{run} (kl_coef {found['kl_coef']:g})" if found["kl_coef"] is not None else run
            ax.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=label)
        ax.set_xlabel("KL to the SFT model, nats an answer")
        ax.set_title(title)
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return png(figure)


def png(figure: Figure) -> bytes:
    """Render a figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _bars(ax: Axes, report: Mapping[str, Any], by_judge: bool) -> None:
    splits, models = split_names(report), list(report["models"])
    width = GROUP / len(models)
    for number, model in enumerate(models):
        found = [report["splits"][split]["models"][model] for split in splits]
        estimates = [one["judge"]["score"] if by_judge else one.get("reward") for one in found]
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(splits))]
        there = [(place, one) for place, one in zip(places, estimates, strict=True) if one]
        if there:
            heights = [one["mean"] for _, one in there]
            colour = COLOURS[number % len(COLOURS)]
            ax.bar([place for place, _ in there], heights, width * 0.95, label=model, color=colour)
            ax.errorbar(
                [p for p, _ in there], heights, error_bars([one for _, one in there]), fmt="none", ecolor="black", lw=1
            )
    ax.set_xticks(range(len(splits)), splits)
    ax.set_ylim(*((0, 109) if by_judge else (None, None)))
    ax.legend(ncols=len(models), frameon=False, loc="upper left", fontsize="small")


def _win_rates(ax: Axes, report: Mapping[str, Any]) -> None:
    found = list(report["win_rate"].items())[::-1]
    several = f"mean_of_{report['num_generations']}"
    one_sample = [(place + 0.12, one) for place, (_, one) in enumerate(found)]
    means_of_several = [(place - 0.12, one[several]) for place, (_, one) in enumerate(found) if several in one]
    for there, colour, label in (
        (one_sample, COLOURS[1], "one sample"),
        (means_of_several, COLOURS[3], several.replace("_", " ")),
    ):
        if there:
            means, errors = [one["mean"] for _, one in there], error_bars([one for _, one in there])
            ax.errorbar(means, [p for p, _ in there], xerr=errors, fmt="o", color=colour, label=label, capsize=2)
    ax.axvline(0.5, color="black", lw=0.8)
    ax.set_yticks(range(len(found)), [name.replace("_", " ") for name, _ in found])
    ax.set_xlim(0, 1)
    ax.set_title(f"win rate by the {report['compared_by']}, ties half: {report['split']}")
    if found:
        ax.legend(frameon=False, fontsize="small")


def error_bars(estimates: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distances of the bounds from the mean, [below, above]; never negative, though a bootstrap bound may cross it.

    NaN, which is drawn as no bar, where there is no interval.
    """
    bounds = [one["ci95"] or [nan, nan] for one in estimates]
    below = [one["mean"] - low for one, (low, _) in zip(estimates, bounds, strict=True)]
    above = [high - one["mean"] for one, (_, high) in zip(estimates, bounds, strict=True)]
    return [[distance if isnan(distance) else max(0.0, distance) for distance in side] for side in (below, above)]
