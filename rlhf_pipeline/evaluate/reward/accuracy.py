"""How many pairs a score orders as the labellers did, in all and in slices. Pure numpy.

A tie of the score counts half. Intervals are over prompts, since the pairs of one prompt share its completions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from rlhf_pipeline.evaluate.reward.comparisons import UNKNOWN, Comparisons
from rlhf_pipeline.evaluate.statistics import Floats, clustered_share
from rlhf_pipeline.evaluate.win_rate import outcomes

SIMILAR = 0.1
"""Completions are of similar length where they differ by at most this share of the longer one."""
LONGER, ALIKE, SHORTER = "better one longer", "similar length", "better one shorter"


def pair_results(scores: Floats, pairs: Comparisons) -> Floats:
    """Results of the N pairs under `scores` (M,): 1 ordered as ranked, 0 the other way round, 0.5 tied."""
    return outcomes(scores[pairs.better], scores[pairs.worse])


def estimate(results: Floats, clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    """Mean of `results` (N,), from 0 to 1, with its interval over clusters, as JSON; None where there is nothing."""
    found = clustered_share(results, clusters)
    return None if found is None else found.to_dict()


def ahead(ours: Floats, theirs: Floats, clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    """Mean of results (N,) minus others' on the same pairs, from -1 to 1, as JSON; None where there is nothing."""
    found = clustered_share(ours - theirs, clusters, least=-1.0)
    return None if found is None else found.to_dict()


def sliced(results: Floats, clusters: Sequence[Hashable], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Estimate every group of equal `labels` (N,), in the order of first appearance."""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    found = {label: estimate(results[rows], [clusters[row] for row in rows]) for label, rows in places.items()}
    return {label: one for label, one in found.items() if one is not None}


def slice_labels(pairs: Comparisons, lengths: Floats) -> dict[str, list[str]]:
    """Label the N pairs in every way they are sliced: by K, rank distance, source, and length of the completions."""
    rankings = [pairs.rankings[row] for row in pairs.ranking]
    better, worse = lengths[pairs.better], lengths[pairs.worse]
    return {
        "k": [str(len(ranking.completions)) for ranking in rankings],
        "rank_distance": [str(steps) for steps in pairs.distance],
        "source": [ranking.source or UNKNOWN for ranking in rankings],
        "length": length_classes(better, worse),
        "length_difference": quartiles(better - worse),
    }


def length_classes(better: Floats, worse: Floats) -> list[str]:
    """Say of N pairs which completion is longer, or that both are similar, from their lengths (N,)."""
    similar = np.abs(better - worse) <= SIMILAR * np.maximum(better, worse)
    return [ALIKE if near else LONGER if more else SHORTER for near, more in zip(similar, better > worse, strict=True)]


def quartiles(values: Floats) -> list[str]:
    """Label N values by the quartile they lie in, as "smallest to largest"; equal values are never parted."""
    if not len(values):
        return []
    numbers = np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values, side="left")
    ends = {number: (values[numbers == number].min(), values[numbers == number].max()) for number in set(numbers)}
    return ["{:g} to {:g}".format(*ends[number]) for number in numbers]


def in_order(slices: dict[str, Any], kind: str) -> dict[str, Any]:
    """Sort the slices of one kind for reading: by number, by class, or the largest first."""
    if kind == "source":
        keys = sorted(slices, key=lambda name: -slices[name]["n"])
    elif kind == "length":
        keys = [name for name in (LONGER, ALIKE, SHORTER) if name in slices]
    else:
        keys = sorted(slices, key=lambda name: float(name.split(" to ")[0]))
    return {name: slices[name] for name in keys}
