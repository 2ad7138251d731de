"""What a reward model has to beat: chance, length alone, and a bag of words.

All are fitted on other prompts than they are measured on: on rankings given for that, else by cross-fitting, where the
prompts are parted into folds and every fold is scored by what was fitted on the others.
The bag of words is a Bradley-Terry model, P(better is preferred) = sigmoid(w . (f(better) - f(worse))), on
f = log(1 + count) of words, with an L2 penalty chosen on held-out prompts of the fitting data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from rlhf_pipeline.evaluate.reward.accuracy import pair_results
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons
from rlhf_pipeline.evaluate.reward.words import Ints, Sparse
from rlhf_pipeline.evaluate.statistics import Floats

FOLDS = 5
PENALTIES = (1000.0, 100.0, 10.0, 1.0)
"""The strongest first: each fit starts from the one before."""
MOST_WORDS = 5000
MIN_TEXTS = 2
"""A word counts where it is in this many completions of the fitting data; the MOST_WORDS most frequent of them."""
STEPS = 100

Fit = Callable[[Comparisons, Ints], Callable[[Comparisons], Floats]]
"""From pairs and the places of those to fit on, to a function that scores all completions, (M,)."""


def baseline_results(pairs: Comparisons, train: Comparisons | None, fit: Fit) -> Floats:
    """Results (N,) of a baseline on `pairs`: fitted on `train`, or cross-fitted by prompt where that is None.

    NaN where nothing could be fitted, with fewer than two prompts.
    """
    if train is not None:
        return pair_results(fit(train, np.arange(len(train.better)))(pairs), pairs)
    results = np.full(len(pairs.better), np.nan)
    folds = fold_of(pairs.clusters)
    for fold in np.unique(folds):
        others = np.flatnonzero(folds != fold)
        if len(others):
            own = folds == fold
            results[own] = pair_results(fit(pairs, others)(pairs), pairs)[own]
    return results


def fold_of(clusters: Sequence[str], folds: int = FOLDS) -> Ints:
    """Number the fold of N pairs, equal clusters together: clusters are dealt out in the order of their hash."""
    ordered = sorted(set(clusters), key=lambda name: hashlib.sha256(name.encode()).digest())
    number = {name: place % folds for place, name in enumerate(ordered)}
    return np.array([number[name] for name in clusters], dtype=np.int64)


def fit_length(pairs: Comparisons, places: Ints) -> Callable[[Comparisons], Floats]:
    """Learn one bit, whether the longer or the shorter completion wins more often."""
    longer_wins = pair_results(pairs.lengths(), pairs)[places].mean() >= 0.5
    sign = 1.0 if longer_wins else -1.0
    return lambda others: sign * others.lengths()


def fit_words(pairs: Comparisons, places: Ints) -> Callable[[Comparisons], Floats]:
    """Fit the bag of words on some of the pairs; its penalty is the one that predicts a held-out fold of them best."""
    better, worse = pairs.better[places], pairs.worse[places]
    words = pairs.words.most_frequent(np.unique([better, worse]), MOST_WORDS, MIN_TEXTS)
    features = pairs.words.features(words)
    held = fold_of([pairs.clusters[place] for place in places]) == 0
    penalty, weights = PENALTIES[0], np.zeros(len(words))
    if held.any() and not held.all():
        fitted = {}
        for one in PENALTIES:
            weights = fit_bradley_terry(features, better[~held], worse[~held], one, weights)
            fitted[one] = weights
        penalty = min(PENALTIES, key=lambda one: _loss(features.times(fitted[one]), better[held], worse[held]))
        weights = fitted[penalty]
    weights = fit_bradley_terry(features, better, worse, penalty, weights)
    return lambda others: others.words.features(words).times(weights)


def fit_bradley_terry(features: Sparse, better: Ints, worse: Ints, penalty: float, weights: Floats) -> Floats:
    """Minimise sum of softplus(-x . w) + penalty / 2 |w|^2 over w (W,), which is convex, with L-BFGS from `weights`.

    x is the row of `features` (M, W) of the better completion minus that of the worse one, for N pairs of places; it
    is never made, as completions have scores, of which pairs are differences.
    """
    import torch

    if not features.width:
        return weights
    found = torch.from_numpy(weights.copy()).requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        at = found.detach().numpy()
        scores = features.times(at)
        wrong = np.exp(-np.logaddexp(0, scores[better] - scores[worse]))  # probability of the other order
        won, lost = (np.bincount(side, wrong, len(scores)).astype(np.float64) for side in (better, worse))
        found.grad = torch.from_numpy(penalty * at - features.transposed.times(won - lost))
        return float(len(better) * _loss(scores, better, worse) + penalty / 2 * at @ at)

    optimizer.step(closure)
    return np.array(found.detach().numpy())


def _loss(scores: Floats, better: Ints, worse: Ints) -> float:
    """Negative log-likelihood of scores (M,): mean of softplus(-difference) over N pairs."""
    return float(np.logaddexp(0, scores[worse] - scores[better]).mean())
