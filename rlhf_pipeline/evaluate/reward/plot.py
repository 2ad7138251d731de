"""Draw evaluation-reward.json: accuracy beside the baselines, the reliability curve, scores with and without EOS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_pipeline.evaluate.plots import COLOURS, error_bars, png
from rlhf_pipeline.evaluate.reward.report import compared

FORMS = {"with_eos": "with EOS", "without_eos": "without", "prompt_alone": "prompt alone"}


def draw(report: Mapping[str, Any]) -> bytes:
    """Three panels, as a PNG."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[4, 3, 3])
    _accuracy(left, report)
    _reliability(middle, report)
    _scores(right, report)
    return png(figure)


def _accuracy(ax: Axes, report: Mapping[str, Any]) -> None:
    names = list(compared(next(iter(report["data"].values()))))
    for number, name in enumerate(names):
        found = [compared(one)[name]["accuracy"] for one in report["data"].values()]
        there = [(place + 0.8 * (number + 0.5) / len(names), one) for place, one in enumerate(found) if one]
        places, means = [place for place, _ in there], [one["mean"] for _, one in there]
        colour = COLOURS[number % len(COLOURS)]
        errors = error_bars([one for _, one in there])
        ax.errorbar(places, means, errors, fmt="o", color=colour, label=name, capsize=2)
    ax.axhline(0.5, color="black", lw=0.8)
    ax.set_xticks([place + 0.4 for place in range(len(report["data"]))], list(report["data"]), fontsize="small")
    ax.set_title("pairs ordered as ranked, 95 % intervals")
    ax.legend(frameon=False, fontsize="small")


def _reliability(ax: Axes, report: Mapping[str, Any]) -> None:
    ax.plot([0.5, 1], [0.5, 1], color="black", lw=0.8)
    for number, (label, one) in enumerate(_curves(report)):
        bins = one["calibration"]["bins"]
        confidences, accuracies = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        means, colour = [b["mean"] for b in accuracies], COLOURS[(number + 2) % len(COLOURS)]
        ax.errorbar(confidences, means, error_bars(accuracies), marker="o", ms=3, color=colour, label=label, lw=1)
    ax.set_xlabel("confidence: sigmoid of |score difference|")
    ax.set_ylabel("ordered as ranked")
    ax.set_title("reliability, bins of equal mass")
    ax.legend(frameon=False, fontsize="small")


def _scores(ax: Axes, report: Mapping[str, Any]) -> None:
    """Boxes of the scores: quartiles, and whiskers from 5 to 95 %."""
    keys = ("whislo", "q1", "med", "q3", "whishi")
    boxes = [
        {**dict(zip(keys, one["eos"][form]["quantiles"], strict=True)), "label": f"{label}\n{text}"}
        for label, one in _curves(report)
        for form, text in FORMS.items()
        if one["eos"][form]
    ]
    ax.bxp(boxes, showfliers=False, orientation="horizontal")
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize="x-small")
    ax.set_title("scores: quartiles, whiskers 5 to 95 %")


def _curves(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Every reward model on every data set, with a label."""
    several = len(report["data"]) > 1
    return [
        (f"{reward}, {data}" if several else reward, one)
        for data, found in report["data"].items()
        for reward, one in found["rewards"].items()
    ]
