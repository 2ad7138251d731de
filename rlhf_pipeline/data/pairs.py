"""Comparisons of two, out of rankings of K. Left out: margins, label smoothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Literal

from rlhf_pipeline.records import Ranking

Ties = Literal["skip", "model"]


def ordered_pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """Give the (better, worse) numbers of every two completions of different rank and text: at most K (K - 1) / 2."""
    return compared_pairs(ranking, "skip")


def compared_pairs(ranking: Ranking, ties: Ties) -> list[tuple[int, int]]:
    """Give `ordered_pairs`, and where ties are modelled, every two completions of equal rank and different text too."""
    return [pair for pair in _best_first(ranking) if _why_not(ranking, *pair, ties) is None]


def dropped(rankings: Iterable[Ranking], ties: Ties = "skip") -> Counter[str]:
    """Count the pairs that `compared_pairs` leaves out: "tie" (equal ranks), "same text" (in spite of the ranks)."""
    reasons = (_why_not(ranking, *pair, ties) for ranking in rankings for pair in _best_first(ranking))
    return Counter(reason for reason in reasons if reason)


def _best_first(ranking: Ranking) -> Iterator[tuple[int, int]]:
    for one, other in combinations(range(len(ranking.completions)), 2):
        yield (one, other) if ranking.ranks[one] <= ranking.ranks[other] else (other, one)


def _why_not(ranking: Ranking, better: int, worse: int, ties: Ties) -> str | None:
    if ties == "skip" and ranking.ranks[better] == ranking.ranks[worse]:
        return "tie"
    alike = ranking.completions[better] == ranking.completions[worse]
    return "same text" if alike and ranking.is_finished(better) == ranking.is_finished(worse) else None
