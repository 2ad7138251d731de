"""What a reward model has to beat: chance, length alone, and a bag of words.

All are fitted on other prompts than they are measured on: on rankings given for that, else by cross-fitting, where the
prompts are parted into folds and every fold is scored by what was fitted on the others.
The bag of words is a Bradley-Terry model, P(better is preferred) = sigmoid(w . (f(better) - f(worse))), on
f = log(1 + count) of words, with an L2 penalty chosen on held-out prompts of the fitting data.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlhf_pipeline.evaluate.reward.accuracy import pair_results
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons, Ints
from rlhf_pipeline.evaluate.statistics import Floats
from rlhf_pipeline.records import completion_text

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 5
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
MOST_WORDS = 5000
MIN_TEXTS = 2
"""A word counts where it is in this many completions of the fitting data; the MOST_WORDS most frequent of them."""
STEPS = 100
_WORD = re.compile(r"\w+|[^\w\s]")

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
    bag = Bag.of(_texts(pairs, np.unique([pairs.better[places], pairs.worse[places]])))
    differences = bag.differences(pairs, places)
    folds = fold_of([pairs.clusters[place] for place in places])
    inner, held = differences.rows(np.flatnonzero(folds != 0)), differences.rows(np.flatnonzero(folds == 0))
    penalty = PENALTIES[-1]
    if inner.count and held.count:
        losses = {penalty: held.loss(fit_bradley_terry(inner, penalty)) for penalty in PENALTIES}
        penalty = min(losses, key=losses.__getitem__)
    weights = fit_bradley_terry(differences, penalty)
    return lambda others: bag.scores(others, weights)


@dataclass(frozen=True)
class Differences:
    """N rows of W features, few of them not zero: `values[i]` stands in row `row[i]`, column `column[i]`."""

    count: int
    width: int
    row: Ints
    column: Ints
    values: Floats

    def rows(self, chosen: Ints) -> Differences:
        """Only the rows of these numbers, numbered anew."""
        number = np.full(self.count, -1)
        number[chosen] = np.arange(len(chosen))
        kept = number[self.row] >= 0
        return Differences(len(chosen), self.width, number[self.row[kept]], self.column[kept], self.values[kept])

    def loss(self, weights: Floats) -> float:
        """Negative log-likelihood of weights (W,): mean of softplus(-difference)."""
        margin = np.bincount(self.row, weights=self.values * weights[self.column], minlength=self.count)
        return float(np.logaddexp(0, -margin).mean())


def fit_bradley_terry(differences: Differences, penalty: float) -> Floats:
    """Minimise sum of softplus(-x . w) + penalty / 2 |w|^2 over w (W,), which is convex, with L-BFGS."""
    import torch

    if not differences.width:
        return np.zeros(0)
    row, column, values = map(torch.from_numpy, (differences.row, differences.column, differences.values))
    weights = torch.zeros(differences.width, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        margins = torch.zeros(differences.count, dtype=torch.float64).index_add(0, row, values * weights[column])
        loss = torch.nn.functional.softplus(-margins).sum() + penalty / 2 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return np.asarray(weights.detach().numpy())


@dataclass(frozen=True)
class Bag:
    """A vocabulary of words: word -> column."""

    words: dict[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Bag:
        """The most frequent words of these texts, by how many of them a word is in."""
        found = Counter(word for text in texts for word in set(_words(text)))
        common = sorted((word for word, n in found.items() if n >= MIN_TEXTS), key=lambda word: (-found[word], word))
        return cls({word: column for column, word in enumerate(common[:MOST_WORDS])})

    def features(self, text: str) -> dict[int, float]:
        """log(1 + count) of every known word of a text, by column."""
        counts = Counter(self.words[word] for word in _words(text) if word in self.words)
        return {column: float(np.log1p(count)) for column, count in counts.items()}

    def differences(self, pairs: Comparisons, places: Ints) -> Differences:
        """Features of the better completion minus those of the worse one, for the pairs at `places`."""
        known = {int(i): self.features(text) for i, text in _numbered(pairs, places)}
        row, column, values = [], [], []
        for number, place in enumerate(places):
            for sign, side in ((1.0, pairs.better[place]), (-1.0, pairs.worse[place])):
                found = known[int(side)]
                row += [number] * len(found)
                column += list(found)
                values += [sign * value for value in found.values()]
        return Differences(
            len(places),
            len(self.words),
            np.array(row, dtype=np.int64),
            np.array(column, dtype=np.int64),
            np.array(values, dtype=np.float64),
        )

    def scores(self, pairs: Comparisons, weights: Floats) -> Floats:
        """The score of every completion, (M,)."""
        texts = _texts(pairs, np.arange(len(pairs.answers)))
        found = (self.features(text) for text in texts)
        return np.array([sum(weights[column] * value for column, value in one.items()) for one in found], dtype=float)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _texts(pairs: Comparisons, places: Ints) -> list[str]:
    return [completion_text(pairs.answers[place].completion) for place in places]


def _numbered(pairs: Comparisons, places: Ints) -> Iterable[tuple[int, str]]:
    used = np.unique([pairs.better[places], pairs.worse[places]])
    return zip(used.tolist(), _texts(pairs, used), strict=True)
