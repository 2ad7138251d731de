"""Reward models of the miniature world from labellers who err: accuracy beside its ceiling, and calibration.

    python -m benchmarks.noisy_labellers [--run demo-seed0] [--artifacts artifacts]    -> results/noisy_labellers.json

Needs a finished `make demo`: the SFT model and its samples are the demo's, and so are the settings of training. The
ceiling is the exact judge on the same held-out pairs: what labellers got wrong at random nobody can predict.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.contestants import ROOT
from benchmarks.labelled_world import Demo, Pairs
from benchmarks.provenance import describe_machine, describe_moment
from benchmarks.rankings import prepare_process, write
from rlhf_pipeline.evaluate.reward.calibration import calibration
from rlhf_pipeline.evaluate.statistics import clustered_share
from rlhf_pipeline.evaluate.win_rate import outcomes

RESULTS = ROOT / "benchmarks" / "results"
ERROR_RATES = (0.10, 0.25, 0.40)
TRAINING: dict[str, Any] = {
    "groups_a_step": 8, "learning_rate": 5e-4, "lr_scheduler_type": "linear", "warmup_steps": 20, "num_train_epochs": 1,
}  # fmt: skip
"""The settings of recipes/demo/reward.yaml."""


def measure(pairs: Pairs) -> dict[str, Any]:
    """Accuracy and ceiling with intervals over entities, and calibration of sigmoid(score difference)."""
    lead = pairs.better - pairs.worse
    accuracy = clustered_share(outcomes(pairs.better, pairs.worse), pairs.entities)
    ceiling = clustered_share(outcomes(pairs.judged_better, pairs.judged_worse), pairs.entities)
    assert accuracy is not None and ceiling is not None, "there are pairs"
    calibrated = calibration(lead, pairs.entities)
    assert calibrated is not None, "there are pairs"
    return {"accuracy": accuracy.to_dict(), "ceiling": ceiling.to_dict(), **calibrated}


def main(argv: Sequence[str] | None = None) -> None:
    """Train one reward model for each error rate, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="demo-seed0")
    parser.add_argument("--artifacts", default="artifacts")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args(argv)
    prepare_process()
    facts = {"machine": describe_machine(), **describe_moment()}
    demo, found = Demo.open(arguments.artifacts, arguments.run), []
    for rate in ERROR_RATES:
        for seed in range(arguments.seeds):
            data = demo.labelled(rate, seed)
            trainer = demo.train("groups", demo.encode(data.train), seed, **TRAINING)
            one = {"error_rate": rate, "seed": seed, **measure(demo.score(trainer.model, data.held_out, data.facts))}
            means = (one["accuracy"]["mean"], one["ceiling"]["mean"], one["ece"])
            text = "error rate {}  seed {}  accuracy {:.3f}  ceiling {:.3f}  ece {:.3f} (by chance {:.3f})"
            print(text.format(rate, seed, *means, one["ece_if_calibrated"]))
            found.append(one)
    write({"training": TRAINING, **facts, "results": found}, RESULTS / "noisy_labellers.json")
    draw(found, RESULTS / "noisy_labellers.png")


def draw(found: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw accuracy under its ceiling, and how often predictions of each confidence were right."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    first = [one for one in found if one["seed"] == 0]
    rates = [one["error_rate"] for one in first]
    for name, colour in (("accuracy", "#4c78a8"), ("ceiling", "#8c8c8c")):
        means = np.array([one[name]["mean"] for one in first])
        bounds = np.array([one[name]["ci95"] for one in first])
        left.errorbar(rates, means, yerr=np.abs(bounds - means[:, None]).T, color=colour, marker="o", label=name)
    left.set(xlabel="error rate of the labellers", ylabel="held-out pairs ordered as ranked")
    for one in first:
        bins = one["bins"]
        where, often = [b["confidence"] for b in bins], [b["accuracy"]["mean"] for b in bins]
        right.plot(where, often, marker="o", label=f"{one['error_rate']:.0%} errors, ECE {one['ece']:.3f}")
    right.plot([0.5, 1], [0.5, 1], color="black", lw=1)
    right.set(xlabel="sigmoid(score difference)", ylabel="right")
    for axes in (left, right):
        axes.legend(frameon=False)
    figure.savefig(file, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
