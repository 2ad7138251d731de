"""Intervals: hand-computed cases, and simulations of how often they cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.interval_coverage import coverage
from rlhf_pipeline.evaluate import statistics
from rlhf_pipeline.evaluate.statistics import (
    Estimate,
    clustered_mean,
    clustered_share,
    clustered_statistic,
    student_quantile,
    wilson,
)


def test_mean_counts_values_not_clusters():
    estimate = clustered_mean([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert (estimate.mean, estimate.count, estimate.clusters) == (0.75, 4, 2)


def test_nan_does_not_count():
    estimate = clustered_mean([1, np.nan, 0, np.nan], ["a", "a", "b", "c"])
    assert (estimate.mean, estimate.count, estimate.clusters) == (0.5, 2, 2)
    assert clustered_mean([np.nan]) is None
    assert clustered_mean([]) is None
    assert clustered_share([np.nan, 1, 1], ["a", "b", "b"]) == Estimate(1.0, 0.0, 1.0, 2, 1)
    assert clustered_share([np.nan]) is None


def test_two_clusters_bootstrap_to_their_extremes():
    # draws are aa, ab, ba, bb: a quarter of them has mean 1, a quarter 0, so both ends of any 95 % interval are these
    estimate = clustered_mean([1, 1, 0, 0], ["a", "a", "b", "b"])
    assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_one_cluster_says_nothing_of_others():
    found = clustered_mean([0.2, 0.4], ["a", "a"])
    assert found == Estimate(pytest.approx(0.3), -math.inf, math.inf, 2, 1)
    assert found.to_dict() == {"mean": 0.3, "ci95": None, "n": 2, "clusters": 1}
    assert clustered_share([0.2, 0.4], ["a", "a"]) == Estimate(pytest.approx(0.3), 0.0, 1.0, 2, 1)
    assert clustered_share([-0.5], least=-1.0) == Estimate(-0.5, -1.0, 1.0, 1, 1)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_shares_that_are_all_alike_are_not_certain(value):
    """As wide as Wilson's for 20 values at their ends; ties in the middle, by the same formula, half on each side."""
    found, at_ends = clustered_share([value] * 20), wilson(20, 20)
    assert at_ends.high - at_ends.low < found.high - found.low < 1.2 * (at_ends.high - at_ends.low)
    assert 0 <= found.low <= value <= found.high <= 1
    assert found.low - value == pytest.approx(value - found.high) if value == 0.5 else value in (found.low, found.high)


def test_right_answers_of_few_clusters_say_as_little_as_the_clusters():
    five = clustered_share([1.0] * 5)
    many = clustered_share([1.0] * 500, [number % 5 for number in range(500)])
    assert (many.low, many.high) == pytest.approx((five.low, five.high))


def test_a_share_by_hand():
    # clusters (1, 1), (1, 0), (1, 1), (0, 1): mean .75; residuals .5, -.5, .5, -.5, variance 4/3 1/64 = 1/48; n from
    # .1875 48 = 9, at most all 8; t with 3 degrees of freedom
    found = clustered_share([1, 1, 1, 0, 1, 1, 0, 1], ["a", "a", "b", "b", "c", "c", "d", "d"])
    t = student_quantile(0.975, 3)
    centre, half = (8 * 0.75 + t * t / 2) / (8 + t * t), t * (64 / 48 + t * t / 4) ** 0.5 / (8 + t * t)
    assert (found.mean, found.low) == pytest.approx((0.75, centre - half))
    assert found.high == pytest.approx(min(1, centre + half))


def test_a_difference_is_a_share_on_another_scale():
    values, labels = np.random.default_rng(5).choice([-1.0, -0.5, 0, 0.5, 1], 40), [n % 13 for n in range(40)]
    found, share = clustered_share(values, labels, least=-1.0), clustered_share((values + 1) / 2, labels)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (2 * share.mean - 1, 2 * share.low - 1, 2 * share.high - 1)
    )
    assert clustered_share([0.0] * 30, least=-1.0).low < 0 < clustered_share([0.0] * 30, least=-1.0).high


def test_hundreds_of_shares_have_the_interval_of_the_bootstrap():
    draw = np.random.default_rng(6)
    values, labels = (draw.random(600) < 0.6).astype(float), draw.integers(0, 400, 600).tolist()
    share, bootstrapped = clustered_share(values, labels), clustered_mean(values, labels, draws=20000)
    assert (share.low, share.high) == pytest.approx((bootstrapped.low, bootstrapped.high), abs=0.004)


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


@pytest.mark.parametrize("clusters", [10, 20, 50, 200])
@pytest.mark.parametrize(("size", "correlation"), [(1, 0.0), (6, 0.0), (6, 0.2)])
@pytest.mark.parametrize("share", [0.6, 0.9, 0.95])
def test_intervals_of_shares_cover_the_truth(clusters, size, correlation, share):
    covered, no_width = coverage(clustered_share, clusters, size, correlation, share, runs=1000)
    assert covered >= 0.925 and no_width == 0


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
