"""Baselines find what is planted, find nothing in noise, and never see the prompts they are measured on."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward import comparisons
from rlhf_pipeline.evaluate.reward.baselines import (
    baseline_results,
    fit_bradley_terry,
    fit_length,
    fit_words,
    fold_of,
)
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons
from rlhf_pipeline.evaluate.reward.words import Sparse, WordCounts, count_words
from rlhf_pipeline.evaluate.statistics import clustered_mean
from tests.evaluate.reward.rankings import pairs_of, planted, ranking


def test_words_find_a_planted_signal_in_other_prompts() -> None:
    pairs = pairs_of(*planted(60, seed=0, signal=True))
    assert baseline_results(pairs, None, fit_words).mean() == 1


def test_words_find_nothing_in_noise() -> None:
    pairs = pairs_of(*planted(300, seed=1, signal=False))
    found = clustered_mean(baseline_results(pairs, None, fit_words), pairs.clusters)
    assert found.low < 0.5 < found.high
    assert found.high < 0.62


def by_heart(pairs: Comparisons, places: np.ndarray) -> Callable[[Comparisons], np.ndarray]:
    """Score what was better in the prompts it was fitted on, and everything else alike."""
    known = {pairs.clusters[place] for place in places}

    def score(others: Comparisons) -> np.ndarray:
        scores = np.zeros(len(others.answers))
        scores[[better for better, name in zip(others.better, others.clusters, strict=True) if name in known]] = 1
        return scores

    return score


def test_nothing_is_measured_on_the_prompts_it_was_fitted_on() -> None:
    pairs = pairs_of(*planted(60, seed=5, signal=False, prompts=12))
    assert baseline_results(pairs, pairs, by_heart).tolist() == [1.0] * 60
    assert baseline_results(pairs, None, by_heart).tolist() == [0.5] * 60


def test_words_fitted_elsewhere_are_carried_over() -> None:
    train, pairs = (pairs_of(*planted(40, seed=seed, signal=True)) for seed in (2, 3))
    assert baseline_results(pairs, train, fit_words).mean() == 1
    noise = pairs_of(*planted(200, seed=4, signal=False))
    assert 0.4 < baseline_results(noise, train, fit_words).mean() < 0.6


@pytest.mark.parametrize("longer_wins", [True, False])
def test_length_learns_its_direction(longer_wins: bool) -> None:
    texts = [("a" * (n + 5), "b" * n) for n in range(1, 21)]
    pairs = pairs_of(*[ranking(f"p{n}", two if longer_wins else two[::-1]) for n, two in enumerate(texts)])
    assert baseline_results(pairs, None, fit_length).tolist() == [1.0] * 20
    other_way = pairs_of(ranking("new", ("short", "much longer")))
    expected = 0.0 if longer_wins else 1.0
    assert baseline_results(other_way, pairs, fit_length).tolist() == [expected]


def test_equal_length_is_a_tie() -> None:
    train = pairs_of(ranking("p", ("aaa", "b")))
    assert baseline_results(pairs_of(ranking("q", ("ab", "cd"))), train, fit_length).tolist() == [0.5]


def test_one_prompt_cannot_be_cross_fitted() -> None:
    pairs = pairs_of(ranking("p", ("aaa", "b", "cc")))
    assert np.isnan(baseline_results(pairs, None, fit_length)).all()


def test_folds_keep_a_prompt_together_and_are_of_equal_size() -> None:
    names = [f"p{n}" for n in range(50)] * 3
    folds = fold_of(names)
    assert folds[:50].tolist() == folds[50:100].tolist()
    assert np.bincount(folds).tolist() == [30] * 5
    assert fold_of(names[::-1]).tolist() == folds[::-1].tolist()


def one_column(*values: float) -> Sparse:
    """Texts with one feature."""
    count = len(values)
    return Sparse(np.arange(count + 1), np.zeros(count, dtype=np.int32), np.array(values), 1)


def test_bradley_terry_by_hand() -> None:
    """One feature, three wins and one loss: at the optimum 3 (1 - p) - p = penalty w, with p = sigmoid(w)."""
    features = one_column(3, 2)
    better, worse = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 0])
    found = fit_bradley_terry(features, better, worse, 0.5, np.zeros(1))
    p = 1 / (1 + math.exp(-found[0]))
    assert 3 * (1 - p) - p == pytest.approx(0.5 * found[0], abs=1e-4)
    free = fit_bradley_terry(features, better, worse, 1e-9, np.array([-1.0]))
    assert free[0] == pytest.approx(math.log(3), abs=1e-3), "from wherever it starts"


def test_bradley_terry_finds_the_minimum_of_many_features() -> None:
    """The gradient, by differences of rows that are made here, is 0."""
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list("abcdefgh"), 6)) for _ in range(60)]
    counts = count_words(texts)
    features = counts.features(counts.most_frequent(np.arange(60), 8, 2))
    better, worse = draw.integers(0, 60, 200), draw.integers(0, 60, 200)
    weights = fit_bradley_terry(features, better, worse, 2.0, np.zeros(8))
    rows = np.array([[math.log1p(text.split().count(word)) for word in counts.vocabulary] for text in texts])
    columns = [counts.vocabulary.index(word) for word in counts.most_frequent(np.arange(60), 8, 2)]
    x = (rows[better] - rows[worse])[:, columns]
    gradient = 2.0 * weights - x.T @ (1 / (1 + np.exp(x @ weights)))
    assert np.abs(gradient).max() < 1e-3 < np.abs(weights).max()


def test_texts_are_counted_once_for_all_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()

    def count(texts: Iterable[str]) -> WordCounts:
        kept = list(texts)
        seen.extend(kept)
        return count_words(kept)

    monkeypatch.setattr(comparisons, "count_words", count)
    pairs = pairs_of(*planted(40, seed=0, signal=True))
    baseline_results(pairs, None, fit_words)
    assert len(seen) == len(pairs.answers)


def test_pairs_cost_no_memory_for_their_words() -> None:
    """Forty completions of a prompt make 780 pairs, of 60 words each: as rows of numbers, tens of megabytes."""
    draw = np.random.default_rng(0)
    vocabulary = [f"w{n}" for n in range(300)]
    rows = [ranking(f"p{n}", [" ".join(draw.permutation(vocabulary)[:60]) for _ in range(40)]) for n in range(8)]
    pairs = pairs_of(*rows)
    places = np.arange(len(pairs.better))
    fit_words(pairs, places[:1])  # imports what it needs
    tracemalloc.start()
    fit_words(pairs, places)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(places) == 8 * 780
    assert peak < 4e6


def test_words_that_are_too_rare_leave_a_coin() -> None:
    train = pairs_of(*[ranking(f"p{n}", (f"w{n}", f"v{n}")) for n in range(4)])
    assert baseline_results(pairs_of(ranking("q", ("w1", "v2"))), train, fit_words).tolist() == [0.5]
