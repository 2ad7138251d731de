"""ECE, Brier and log loss by hand, and on models whose calibration is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward.calibration import calibration, ece, ece_if_calibrated, equal_mass_bins, sigmoid


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_sigmoid() -> None:
    values = sigmoid(np.array([0.0, logit(0.9), -1000.0, 1000.0]))
    assert values == pytest.approx([0.5, 0.9, 0.0, 1.0])


def test_ece_by_hand() -> None:
    """Bins {.6, .7} and {.8, .9}; accuracies 1/2 and 1: |.5 - .65| and |1 - .85|, half of the pairs each."""
    confidence, right = np.array([0.9, 0.6, 0.8, 0.7]), np.array([1.0, 1.0, 1.0, 0.0])
    bins = equal_mass_bins(confidence, 2)
    assert bins.tolist() == [1, 0, 1, 0]
    assert ece(confidence, right, bins) == pytest.approx(0.15)
    assert ece(confidence, right, equal_mass_bins(confidence, 1)) == pytest.approx(0.0)


def test_bins_have_equal_mass_and_never_part_equal_values() -> None:
    spread = np.random.default_rng(0).random(1000)
    assert np.bincount(equal_mass_bins(spread, 10)).tolist() == [100] * 10
    bins = equal_mass_bins(np.array([0.5] * 6 + [0.9] * 4), 5)
    assert len(set(bins[:6].tolist())) == len(set(bins[6:].tolist())) == 1


def test_figures_by_hand() -> None:
    """Probabilities .9 and .8 of the order that labellers chose, and .4 where the model would have chosen the other."""
    found = calibration(np.array([logit(0.9), logit(0.8), logit(0.4)]), ["p", "q", "r"])
    assert found["brier"]["mean"] == pytest.approx((0.01 + 0.04 + 0.36) / 3, abs=1e-4)
    assert found["log_loss"]["mean"] == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3, abs=1e-4)
    assert found["mean_confidence"] == pytest.approx((0.9 + 0.8 + 0.6) / 3, abs=1e-4)
    [only] = found["bins"]
    assert only["confidence"] == found["mean_confidence"]
    assert (only["accuracy"]["mean"], only["accuracy"]["n"]) == (pytest.approx(2 / 3, abs=1e-4), 3)
    assert found["ece"] == pytest.approx(0.1, abs=1e-4)


def test_a_coin() -> None:
    found = calibration(np.zeros(40), list(range(40)))
    assert (found["ece"], found["brier"]["mean"], found["log_loss"]["mean"]) == (0, 0.25, 0.6931)


def test_no_pairs_are_no_figures() -> None:
    assert calibration(np.array([]), []) is None


def test_a_calibrated_model_has_the_ece_of_chance_and_an_overconfident_one_more() -> None:
    draw = np.random.default_rng(1)
    size = draw.exponential(1.5, 2000)
    difference = np.where(draw.random(2000) < sigmoid(size), size, -size)
    honest, loud = (calibration(factor * difference, range(2000)) for factor in (1, 3))
    assert honest["ece"] < 2 * honest["ece_if_calibrated"] < 0.06
    assert loud["ece"] > 4 * loud["ece_if_calibrated"]
    assert loud["log_loss"]["mean"] > honest["log_loss"]["mean"]
    assert len(honest["bins"]) == 10


def test_fewer_pairs_have_fewer_bins_and_more_chance() -> None:
    confidence = np.linspace(0.5, 0.99, 1000)
    few, many = confidence[::20], confidence
    assert ece_if_calibrated(few, equal_mass_bins(few, 5)) > ece_if_calibrated(many, equal_mass_bins(many, 5)) > 0
    assert len(calibration(np.linspace(0.1, 2, 35), range(35))["bins"]) == 3
