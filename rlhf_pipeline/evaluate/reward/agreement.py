"""How often labellers agree with each other, and a score with each of them. Pure numpy and strings.

A labeller's verdict on two completions is that the first is better, the second is, or that they tie. Which one is
called the first is arbitrary, so chance agreement is computed with both orders counted: between labellers who tie with
shares t and u it is t u + (1 - t) (1 - u) / 2. Kappa (Cohen 1960) is (agreement - chance) / (1 - chance).

Left out: the reliability of a labeller with themself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rlhf_pipeline.evaluate.reward.accuracy import estimate, pair_results, sliced
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons
from rlhf_pipeline.evaluate.statistics import Floats

Verdict = int
"""1: the first of two completions is better, -1: the second is, 0: they tie."""
Verdicts = list[tuple[str, Verdict]]
MOST = 20
"""Pairs of labellers that are reported one by one, those with most in common first."""


def verdicts(pairs: Comparisons) -> dict[tuple[int, int], Verdicts]:
    """Every verdict of a named labeller, by the places of the two completions, the smaller place first."""
    found: dict[tuple[int, int], Verdicts] = defaultdict(list)
    for ranking, places in zip(pairs.rankings, pairs.places, strict=True):
        if ranking.labeler is None:
            continue
        for one, other in combinations(range(len(places)), 2):
            if places[one] != places[other]:
                sign = 1 if places[one] < places[other] else -1
                verdict = sign * int(np.sign(ranking.ranks[other] - ranking.ranks[one]))
                key = (min(places[one], places[other]), max(places[one], places[other]))
                found[key].append((ranking.labeler, verdict))
    return dict(found)


def between_labellers(pairs: Comparisons) -> dict[str, Any] | None:
    """Agreement of different labellers on the same two completions.

    `agreement` counts verdicts that both order, with its interval over prompts; `kappa` counts ties too. None where no
    pair has two named labellers.
    """
    meetings = list(_meetings(verdicts(pairs)))
    if not meetings:
        return None
    prompts = {place: name for places, name in zip(pairs.places, pairs.openings, strict=True) for place in places}
    ordered = [(one[1] == other[1], prompts[place]) for place, one, other in meetings if one[1] and other[1]]
    agree, clusters = ([*column] for column in zip(*ordered, strict=True)) if ordered else ([], [])
    by_two: dict[tuple[str, str], list[tuple[Verdict, Verdict]]] = defaultdict(list)
    for _, one, other in meetings:
        (first, a), (second, b) = sorted((one, other))
        by_two[first, second].append((a, b))
    most = sorted(by_two.items(), key=lambda item: -len(item[1]))[:MOST]
    return {
        "labellers": len({name for two in by_two for name in two}),
        "meetings": len(meetings),
        "agreement": estimate(np.array(agree, dtype=np.float64), clusters),
        "kappa": kappa([(one[1], other[1]) for _, one, other in meetings], pooled=True),
        "by_two": [{"labellers": list(two), **_of_two(both)} for two, both in most],
    }


def with_labellers(scores: Floats, pairs: Comparisons) -> dict[str, Any]:
    """Agreement of a score with every labeller: on all their pairs, and on those that two labellers share."""
    named = [place for place, row in enumerate(pairs.ranking) if pairs.rankings[row].labeler is not None]
    results, clusters = pair_results(scores, pairs)[named], [pairs.clusters[place] for place in named]
    labels = [str(pairs.rankings[pairs.ranking[place]].labeler) for place in named]
    shared = {key for key, found in verdicts(pairs).items() if len({name for name, _ in found}) > 1}
    on_shared = [n for n, place in enumerate(named) if _key(pairs, place) in shared]
    return {
        "each": sliced(results, clusters, labels),
        "on_shared": estimate(results[on_shared], [clusters[n] for n in on_shared]),
    }


def kappa(both: Sequence[tuple[Verdict, Verdict]], *, pooled: bool = False) -> float | None:
    """Cohen's kappa of two labellers' verdicts on the same items, ties a category of their own.

    `pooled` takes one share of ties for everybody (Scott 1955), where the two sides are no fixed persons. None without
    items, and where chance alone agrees always.
    """
    if not both:
        return None
    ties = np.array([[verdict == 0 for verdict in two] for two in both], dtype=np.float64).mean(axis=0)
    one, other = (ties.mean(), ties.mean()) if pooled else ties
    chance = one * other + (1 - one) * (1 - other) / 2
    agreement = float(np.mean([a == b for a, b in both]))
    return None if chance == 1 else round(float((agreement - chance) / (1 - chance)), 4)


def _meetings(found: dict[tuple[int, int], Verdicts]) -> Iterator[tuple[int, tuple[str, int], tuple[str, int]]]:
    """Every two verdicts of different labellers on one pair, with a place that names its prompt."""
    for (place, _), several in found.items():
        for one, other in combinations(several, 2):
            if one[0] != other[0]:
                yield place, one, other


def _of_two(both: list[tuple[Verdict, Verdict]]) -> dict[str, Any]:
    ordered = [a == b for a, b in both if a and b]
    agreement = round(float(np.mean(ordered)), 4) if ordered else None
    return {"n": len(both), "agreement": agreement, "kappa": kappa(both)}


def _key(pairs: Comparisons, place: int) -> tuple[int, int]:
    one, other = int(pairs.better[place]), int(pairs.worse[place])
    return min(one, other), max(one, other)
