"""Rankings as flat tables: the different completions, which are scored once each, and the pairs between them.

A pair is two completions of one ranking with different rank and text. Equal ranks are ties: they are no pairs, and
counted. M different completions, N pairs, T ties. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from rlhf_pipeline.data.pairs import dropped, ordered_pairs
from rlhf_pipeline.data.splits import opening
from rlhf_pipeline.evaluate.reward.words import Ints, WordCounts, count_words
from rlhf_pipeline.evaluate.statistics import Floats
from rlhf_pipeline.records import Ranking, Text, canonical, completion_text

UNKNOWN = "unknown"
"""The name of a source or labeller that the data does not give."""


@dataclass(frozen=True)
class Answer:
    """One completion as it is scored: after its prompt, with EOS if and only if it is finished."""

    prompt: Text
    completion: Text
    finished: bool


@dataclass(frozen=True)
class Comparisons:
    """Rankings and what is compared in them.

    `places`: for each ranking, where its K completions stand among `answers`. `better`, `worse` (N,) and `ties` (T, 2)
    hold such places, `ranking` (N,) the ranking that a pair is from, `distance` (N,) how many ranks lie between.
    """

    rankings: list[Ranking]
    answers: list[Answer]
    places: list[list[int]]
    better: Ints
    worse: Ints
    ranking: Ints
    distance: Ints
    ties: Ints
    same_text: int

    @cached_property
    def openings(self) -> list[str]:
        """What names the cluster of every ranking: the opening turn of its prompt, so a conversation is one cluster."""
        return [opening(ranking) for ranking in self.rankings]

    @cached_property
    def clusters(self) -> list[str]:
        """The cluster of every pair, (N,)."""
        return [self.openings[number] for number in self.ranking]

    @cached_property
    def words(self) -> WordCounts:
        """The words of every completion, counted once for all folds of all fits."""
        return count_words(completion_text(answer.completion) for answer in self.answers)

    def lengths(self) -> Floats:
        """Characters of every completion, (M,): the same for reward models with different tokenizers."""
        return np.array([len(completion_text(answer.completion)) for answer in self.answers], dtype=np.float64)


def compare(rankings: Iterable[Ranking]) -> Comparisons:
    """Find the pairs of `rankings`; an answer that two labellers ranked is one answer."""
    rankings = list(rankings)
    index: dict[str, int] = {}
    answers: list[Answer] = []
    places = [[_place(ranking, number, index, answers) for number in _numbers(ranking)] for ranking in rankings]
    pairs = [(row, *pair) for row, ranking in enumerate(rankings) for pair in ordered_pairs(ranking)]
    steps = [_dense(ranking.ranks) for ranking in rankings]
    tied = [
        (places[row][one], places[row][other])
        for row, ranking in enumerate(rankings)
        for one, other in combinations(_numbers(ranking), 2)
        if ranking.ranks[one] == ranking.ranks[other] and places[row][one] != places[row][other]
    ]
    return Comparisons(
        rankings,
        answers,
        places,
        better=_ints(places[row][good] for row, good, _ in pairs),
        worse=_ints(places[row][bad] for row, _, bad in pairs),
        ranking=_ints(row for row, *_ in pairs),
        distance=_ints(steps[row][bad] - steps[row][good] for row, good, bad in pairs),
        ties=np.array(tied, dtype=np.int64).reshape(-1, 2),
        same_text=dropped(rankings)["same text"],
    )


def _numbers(ranking: Ranking) -> range:
    return range(len(ranking.completions))


def _place(ranking: Ranking, number: int, index: dict[str, int], answers: list[Answer]) -> int:
    """Where a completion stands among `answers`, to which a new one is added."""
    answer = Answer(ranking.prompt, ranking.completions[number], ranking.is_finished(number))
    key = canonical([answer.prompt, answer.completion, answer.finished])
    if key not in index:
        index[key] = len(answers)
        answers.append(answer)
    return index[key]


def _dense(ranks: Sequence[int]) -> list[int]:
    """Ranks counted without gaps: 0, 5, 5, 9 becomes 0, 1, 1, 2."""
    order = sorted(set(ranks))
    return [order.index(rank) for rank in ranks]


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
