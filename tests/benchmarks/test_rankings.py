"""Ranked groups against pairs: the same work on both sides, and the arithmetic of the results."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from benchmarks.labelled_world import Pairs
from benchmarks.noisy_labellers import measure
from benchmarks.overfitting import summary
from benchmarks.rankings import WORKLOADS, Workload, compare, explode, make_groups, ratios, spread

SMALL = Workload(ranked=4, groups=2, pairs_at_once=6, prompt_tokens=4, completion_tokens=(2, 5), steps=3)
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_pairs_are_those_of_the_groups() -> None:
    groups = make_groups(SMALL)
    pairs = explode(groups)
    assert len(groups) == 6 and len(pairs) == SMALL.pairs * SMALL.steps == 36
    rows = groups[0]["input_ids"]
    assert [(pair["chosen_ids"], pair["rejected_ids"]) for pair in pairs[:6]] == list(combinations(rows, 2))


@pytest.mark.parametrize("work", WORKLOADS.values())
def test_both_take_as_many_comparisons_a_step(work: Workload) -> None:
    assert work.pairs % work.pairs_at_once == 0
    assert 0.7 < work.groups * work.ranked / (2 * work.pairs_at_once) <= 1.01  # rows of a forward pass


def test_both_start_with_the_same_loss() -> None:
    runs = compare(SMALL, repeats=2, size=TINY)
    assert [run["who"] for run in runs] == ["pairs", "groups", "groups", "pairs"]
    assert runs[0]["first_loss"] == pytest.approx(runs[1]["first_loss"], abs=1e-4)
    assert all(len(run["seconds"]) == 2 for run in runs)
    assert len(ratios(runs)) == 4


def test_ratios_pair_steps_of_one_repeat() -> None:
    runs = [
        {"repeat": 0, "who": "pairs", "seconds": [6.0, 8.0]},
        {"repeat": 0, "who": "groups", "seconds": [2.0, 2.0]},
        {"repeat": 1, "who": "groups", "seconds": [1.0, 4.0]},
        {"repeat": 1, "who": "pairs", "seconds": [5.0, 8.0]},
    ]
    assert ratios(runs) == [3, 4, 5, 2]
    assert spread(ratios(runs)) == {"min": 2, "median": 3.5, "max": 5, "samples": 4}


def test_a_model_that_knows_the_chances_is_calibrated() -> None:
    draw = np.random.default_rng(0)
    lead = draw.normal(size=20_000)
    swapped = draw.random(20_000) > 1 / (1 + np.exp(-lead))
    better = np.where(swapped, -lead, lead)
    zeros = np.zeros(20_000)
    found = measure(Pairs(better, zeros, better, zeros, [str(n) for n in range(20_000)]))
    assert found["ece"] < 0.02
    assert found["accuracy"] == found["ceiling"]


def test_summary_has_the_last_gap() -> None:
    def run(who: str, seed: int, *epochs: tuple[float, float]) -> dict[str, Any]:
        return {"who": who, "seed": seed, "epochs": [{"train": a, "held_out": b} for a, b in epochs]}

    runs = [run("pairs", 0, (0.7, 0.6), (0.9, 0.5)), run("pairs", 1, (0.7, 0.6), (0.7, 0.5))]
    found = summary([*runs, run("groups", 0, (0.7, 0.6), (0.75, 0.65))])
    assert found["pairs"]["last_gap"] == 0.3 and found["pairs"]["last_gap_by_seed"] == [0.4, 0.2]
    assert found["groups"]["held_out_by_epoch"] == [0.6, 0.65]
