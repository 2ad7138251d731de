"""Accuracy and its slices, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward.accuracy import (
    ALIKE,
    LONGER,
    SHORTER,
    estimate,
    in_order,
    length_classes,
    pair_results,
    quartiles,
    slice_labels,
    sliced,
)
from tests.evaluate.reward.rankings import pairs_of, ranking


def test_right_wrong_and_tied() -> None:
    pairs = pairs_of(ranking("p", ["a", "b", "c"]))
    assert pair_results(np.array([2.0, 2.0, 1.0]), pairs).tolist() == [0.5, 1, 1]
    assert pair_results(np.array([0.0, 2.0, 1.0]), pairs).tolist() == [0, 0, 1]


def test_an_estimate_of_nothing_is_none() -> None:
    assert estimate(np.array([]), []) is None


def test_few_prompts_give_a_wide_interval() -> None:
    """The pairs of one prompt are no independent evidence: forty in two prompts tell less than forty in forty."""
    results = np.array([1.0] * 20 + [0.0] * 20)
    few, many = estimate(results, ["p", "q"] * 20), estimate(results, range(40))
    by_prompt = estimate(results, ["p"] * 20 + ["q"] * 20)
    assert few["mean"] == many["mean"] == by_prompt["mean"] == 0.5
    assert by_prompt["ci95"] == pytest.approx([0, 1], abs=1e-3)
    assert many["ci95"][0] > 0.3


def test_slices_by_hand() -> None:
    pairs = pairs_of(
        ranking("p", ["aaaa", "b", "c"], [0, 1, 2], source="x"),
        ranking("q", ["dd", "eeee"], [0, 1], source="y"),
        ranking("r", ["ff", "gg"], [0, 1]),
    )
    labels = slice_labels(pairs, pairs.lengths())
    assert labels["k"] == ["3", "3", "3", "2", "2"]
    assert labels["rank_distance"] == ["1", "2", "1", "1", "1"]
    assert labels["source"] == ["x", "x", "x", "y", "unknown"]
    assert labels["length"] == [LONGER, LONGER, ALIKE, SHORTER, ALIKE]
    results = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    by_k = sliced(results, pairs.clusters, labels["k"])
    assert {name: (one["mean"], one["n"], one["clusters"]) for name, one in by_k.items()} == {
        "3": (pytest.approx(2 / 3, abs=1e-4), 3, 1),
        "2": (0.5, 2, 2),
    }
    assert list(in_order(by_k, "k")) == ["2", "3"]
    assert list(in_order(sliced(results, pairs.clusters, labels["length"]), "length")) == [LONGER, ALIKE, SHORTER]
    assert list(in_order(sliced(results, pairs.clusters, labels["source"]), "source"))[0] == "x"


def test_similar_is_within_a_tenth_of_the_longer() -> None:
    better, worse = np.array([100.0, 100, 100, 0]), np.array([90.0, 89, 112, 0])
    assert length_classes(better, worse) == [ALIKE, LONGER, SHORTER, ALIKE]


def test_quartiles_by_hand() -> None:
    names = quartiles(np.array([-40.0, -3, 0, 1, 2, 5, 8, 90]))
    assert names == ["-40 to -3"] * 2 + ["0 to 1"] * 2 + ["2 to 5"] * 2 + ["8 to 90"] * 2
    assert quartiles(np.array([3.0] * 5)) == ["3 to 3"] * 5
    assert quartiles(np.array([])) == []
    assert list(in_order(dict.fromkeys(names[::-1]), "length_difference"))[0] == "-40 to -3"
