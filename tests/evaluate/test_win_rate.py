"""Win rates by hand; a model against itself is a tie."""

from __future__ import annotations

import numpy as np

from rlhf_pipeline.evaluate.win_rate import outcomes, win_rate


def test_outcomes_by_hand():
    assert outcomes([1, 0, 0.5, 0.3], [0, 1, 0.5, 0.1 + 0.2]).tolist() == [1, 0, 0.5, 0.5]


def test_win_rate_by_hand():
    # first samples: win, tie, loss, win; means of two: 1 v .5 win, .5 v .5 tie, .5 v .5 tie, 1 v .5 win
    ours = np.array([[1.0, 1.0], [0.5, 0.5], [0.0, 1.0], [1.0, 1.0]])
    theirs = np.array([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]])
    found = win_rate(ours, theirs, "abcd")
    assert (found["mean"], found["win"], found["tie"], found["loss"]) == (0.625, 0.5, 0.25, 0.25)
    several = found["mean_of_2"]
    assert (several["mean"], several["win"], several["tie"], several["loss"]) == (0.75, 0.5, 0.5, 0.0)
    assert found["n"] == 4


def test_a_model_against_itself_ties():
    scores = np.random.default_rng(0).random((20, 4))
    found = win_rate(scores, scores, list(range(20)))
    low, high = found["ci95"]
    assert (found["mean"], found["tie"], low + high) == (0.5, 1.0, 1.0)
    assert 0.4 < low < 0.5, "twenty ties do not prove that there will be nothing else"


def test_both_sides_add_up_to_one():
    draw = np.random.default_rng(1)
    one, other = draw.integers(0, 3, (50, 1)) / 2, draw.integers(0, 3, (50, 1)) / 2
    labels = list(range(50))
    assert win_rate(one, other, labels)["mean"] + win_rate(other, one, labels)["mean"] == 1.0
    assert "mean_of_1" not in win_rate(one, other, labels)


def test_of_different_many_samples_the_shared_number_counts():
    assert "mean_of_2" in win_rate(np.ones((3, 2)), np.ones((3, 4)), [1, 2, 3])
