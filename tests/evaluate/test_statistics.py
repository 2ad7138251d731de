"""Intervals: hand-computed cases, and simulations of how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_pipeline.evaluate import statistics
from rlhf_pipeline.evaluate.statistics import Estimate, clustered_mean, clustered_statistic, student_quantile, wilson


def test_mean_counts_values_not_clusters():
    estimate = clustered_mean([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert (estimate.mean, estimate.count, estimate.clusters) == (0.75, 4, 2)


def test_nan_does_not_count():
    estimate = clustered_mean([1, np.nan, 0, np.nan], ["a", "a", "b", "c"])
    assert (estimate.mean, estimate.count, estimate.clusters) == (0.5, 2, 2)
    assert clustered_mean([np.nan]) is None
    assert clustered_mean([]) is None


def test_two_clusters_bootstrap_to_their_extremes():
    # draws are aa, ab, ba, bb: a quarter of them has mean 1, a quarter 0, so both ends of any 95 % interval are these
    estimate = clustered_mean([1, 1, 0, 0], ["a", "a", "b", "b"])
    assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_one_cluster_spans_its_values():
    assert clustered_mean([0.2, 0.4], ["a", "a"]) == Estimate(pytest.approx(0.3), 0.2, 0.4, 2, 1)


def test_constant_values_have_no_width():
    assert clustered_mean([1.0] * 5) == Estimate(1.0, 1.0, 1.0, 5, 5)


def test_the_interval_is_the_same_for_a_seed():
    values = np.random.default_rng(0).random(50)
    assert clustered_mean(values, seed=4) == clustered_mean(values, seed=4)
    assert clustered_mean(values, seed=4) != clustered_mean(values, seed=5)


def test_large_samples_agree_with_the_normal_interval():
    values = np.random.default_rng(1).normal(size=500)
    estimate = clustered_mean(values, draws=5000)
    half = 1.96 * values.std() / 500**0.5
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.006)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.006)


def test_labels_must_match():
    with pytest.raises(ValueError, match="3 values but 2"):
        clustered_mean([1, 2, 3], ["a", "b"])


def _coverage(clusters, runs=500, *, by_cluster=True):
    """How often the interval covers .6: every cluster has a rate of its own from Beta(3, 2), and eight answers."""
    draw = np.random.default_rng(7)
    labels = np.repeat(np.arange(clusters), 8).tolist()
    covered = 0
    for seed in range(runs):
        values = (draw.random((clusters, 8)) < draw.beta(3, 2, (clusters, 1))).astype(float).ravel()
        estimate = clustered_mean(values, labels if by_cluster else None, seed=seed, draws=400)
        covered += estimate.low <= 0.6 <= estimate.high
    return covered / runs


@pytest.mark.parametrize("clusters", [8, 12, 30])
def test_intervals_over_clusters_cover_the_truth(clusters):
    assert 0.92 <= _coverage(clusters) <= 0.98


def test_intervals_over_answers_would_be_too_narrow():
    assert _coverage(12, runs=200, by_cluster=False) < 0.90


@pytest.mark.parametrize(
    ("freedom", "exact"),
    [(3, 3.1824), (5, 2.5706), (11, 2.2010), (30, 2.0423), (1000, 1.9623)],
)
def test_student_quantiles_are_those_of_the_tables(freedom, exact):
    assert student_quantile(0.975, freedom) == pytest.approx(exact, rel=0.01)
    assert student_quantile(0.025, freedom) == pytest.approx(-exact, rel=0.01)


def test_wilson_by_hand():
    # 8 of 10, z = 1.95996: centre (.8 + .19207) / 1.38415 = .71674, half width 1.95996 sqrt(.016 + .0096037) / 1.38415
    estimate = wilson(8, 10)
    assert estimate.low == pytest.approx(0.49016, abs=1e-4)
    assert estimate.high == pytest.approx(0.94331, abs=1e-4)
    assert wilson(10, 10).high == 1.0
    assert 0 < wilson(10, 10).low < 1
    assert wilson(0, 0) is None


def test_json_form():
    assert Estimate(0.51234, 0.4, 0.6, 9, 3).to_dict(scale=100, digits=1) == {
        "mean": 51.2,
        "ci95": [40.0, 60.0],
        "n": 9,
        "clusters": 3,
    }


def test_a_function_of_sums_agrees_with_the_mean_it_is():
    values, labels = np.random.default_rng(2).random(60), list(range(20)) * 3
    mean = clustered_mean(values, labels)
    parts = np.array([[values[np.array(labels) == one].sum(), 3.0] for one in range(20)])
    found = clustered_statistic(parts, lambda totals: totals[:, 0] / totals[:, 1])
    assert found == pytest.approx((mean.mean, mean.low, mean.high))


def test_many_clusters_are_drawn_in_pieces_with_the_same_result(monkeypatch):
    values = np.random.default_rng(3).random(30)
    at_once = clustered_mean(values)
    monkeypatch.setattr(statistics, "CELLS", 100)
    assert clustered_mean(values) == at_once


def test_a_statistic_that_is_undefined_is_none():
    parts = np.array([[1.0], [2.0]])
    assert clustered_statistic(parts, lambda totals: np.full(len(totals), np.nan)) is None
    assert clustered_statistic(parts[:1], lambda totals: totals[:, 0]) is None
