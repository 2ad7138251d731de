"""How far accuracy in training runs ahead of held-out accuracy, epoch by epoch: ranked groups against pairs.

    python -m benchmarks.overfitting [--run demo-seed0] [--artifacts artifacts]    -> results/overfitting.json, .png

Needs a finished `make demo`. Labellers err in a quarter of what they read, the prompts are few and the epochs many, so
that there is something to overfit to. Both start from the same SFT model and take as many steps of as many comparisons.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from transformers import TrainerCallback

from benchmarks.labelled_world import Demo, Labelled
from benchmarks.noisy_labellers import RESULTS, TRAINING
from benchmarks.provenance import describe_machine, describe_moment
from benchmarks.rankings import prepare_process, write
from rlhf_pipeline.evaluate.win_rate import outcomes

ERROR_RATE, PROMPTS, EPOCHS, HELD_OUT = 0.25, 1000, 6, 0.2
SIDES = ("train", "held_out")


class ByEpoch(TrainerCallback):
    """Measures accuracy on the rankings of training and on those held out, after every epoch."""

    def __init__(self, demo: Demo, data: Labelled) -> None:
        self.demo, self.data = demo, data
        self.found: list[dict[str, float]] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Score both sets."""
        accuracy = {}
        for side in SIDES:
            pairs = self.demo.score(model, getattr(self.data, side), self.data.facts)
            accuracy[side] = round(float(np.mean(outcomes(pairs.better, pairs.worse))), 4)
        self.found.append({"epoch": round(state.epoch), **accuracy})


def main(argv: Sequence[str] | None = None) -> None:
    """Train both for every seed, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="demo-seed0")
    parser.add_argument("--artifacts", default="artifacts")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(argv)
    prepare_process()
    facts = {"machine": describe_machine(), **describe_moment()}
    demo, runs = Demo.open(arguments.artifacts, arguments.run), []
    settings = {**TRAINING, "num_train_epochs": EPOCHS, "lr_scheduler_type": "constant"}
    for seed in range(arguments.seeds):
        data = demo.labelled(ERROR_RATE, seed, prompts=PROMPTS, held_out=HELD_OUT)
        groups = demo.encode(data.train)
        for who in ("pairs", "groups"):
            watch = ByEpoch(demo, data)
            demo.train(who, groups, seed, [watch], **settings)
            print(f"seed {seed}  {who:<6}", *(f"{one['train']:.3f}/{one['held_out']:.3f}" for one in watch.found))
            runs.append({"seed": seed, "who": who, "epochs": watch.found})
    workload = {"error_rate": ERROR_RATE, "prompts": PROMPTS, "held_out": HELD_OUT, "training": settings}
    result = {**summary(runs), "workload": workload, **facts, "runs": runs}
    write(result, RESULTS / "overfitting.json")
    draw(runs, RESULTS / "overfitting.png")


def curve(runs: Sequence[dict[str, Any]], who: str, side: str) -> Any:
    """Accuracy by seed and epoch, (S, E)."""
    return np.array([[one[side] for one in run["epochs"]] for run in runs if run["who"] == who])


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best and the last epoch's held-out accuracy and the last gap, as means over seeds."""
    found: dict[str, Any] = {}
    for who in ("pairs", "groups"):
        train, held_out = (curve(runs, who, side).mean(0) for side in SIDES)
        gaps = curve(runs, who, "train")[:, -1] - curve(runs, who, "held_out")[:, -1]
        found[who] = {
            "held_out_by_epoch": held_out.round(4).tolist(),
            "train_by_epoch": train.round(4).tolist(),
            "last_gap": round(float(gaps.mean()), 4),
            "last_gap_by_seed": gaps.round(4).tolist(),
        }
    return found


def draw(runs: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw accuracy by epoch, a line for the mean over seeds and a band from the smallest to the largest."""
    axes = (figure := Figure(figsize=(7, 4.2), layout="constrained")).subplots()
    for who, colour in (("pairs", "#e45756"), ("groups", "#4c78a8")):
        for side, style in (("train", "--"), ("held_out", "-")):
            lines = curve(runs, who, side)
            epochs = range(1, lines.shape[1] + 1)
            axes.plot(epochs, lines.mean(0), style, color=colour, label=f"{who}, {side.replace('_', ' ')}")
            axes.fill_between(epochs, lines.min(0), lines.max(0), color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="epoch", ylabel="pairs ordered as ranked")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
