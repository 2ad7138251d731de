"""Comparisons of two, out of rankings of K. Left out: margins, label smoothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from rlhf_pipeline.records import Ranking, Text


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse completion; `group` is the index of the ranking both come from."""

    prompt: Text
    chosen: Text
    rejected: Text
    chosen_finished: bool
    rejected_finished: bool
    group: int


def pairs(rankings: Sequence[Ranking]) -> list[Pair]:
    """Expand every ranking into its pairs of different rank and different text: at most K (K - 1) / 2."""
    found = []
    for group, ranking in enumerate(rankings):
        for better, worse in ordered_pairs(ranking):
            texts = ranking.completions[better], ranking.completions[worse]
            ended = ranking.is_finished(better), ranking.is_finished(worse)
            found.append(Pair(ranking.prompt, *texts, *ended, group))
    return found


def ordered_pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """Give the (better, worse) numbers of the pairs that `pairs` makes of one ranking."""
    return [pair for pair in _ordered(ranking) if _why_not(ranking, *pair) is None]


def dropped(rankings: Sequence[Ranking]) -> Counter[str]:
    """Count the pairs that `pairs` leaves out, by reason: "tie" (equal ranks), "same text" (in spite of the ranks)."""
    reasons = (_why_not(ranking, *pair) for ranking in rankings for pair in _ordered(ranking))
    return Counter(reason for reason in reasons if reason)


def _ordered(ranking: Ranking) -> Iterator[tuple[int, int]]:
    """Give every two completions, the better ranked first."""
    for one, other in combinations(range(len(ranking.completions)), 2):
        yield (one, other) if ranking.ranks[one] <= ranking.ranks[other] else (other, one)


def _why_not(ranking: Ranking, better: int, worse: int) -> str | None:
    if ranking.ranks[better] == ranking.ranks[worse]:
        return "tie"
    alike = ranking.completions[better] == ranking.completions[worse]
    return "same text" if alike and ranking.is_finished(better) == ranking.is_finished(worse) else None
