"""Whether longer completions score higher, and whether labellers prefer them. Pure numpy.

The correlation is within rankings: scores and lengths are taken against their mean over the completions of one prompt,
so that a prompt that asks for long answers adds nothing to it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from rlhf_pipeline.evaluate.statistics import Floats, clustered_statistic


def within_correlation(x: Sequence[Floats], y: Sequence[Floats], clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    """Pearson's correlation within groups, pooled: G groups of K values each in `x` and `y`, `clusters` (G,) labels.

    Returns mean (the correlation), ci95 and n, the number of values; None with fewer than two clusters, or where one
    side never varies inside a group.
    """
    totals: dict[Hashable, Floats] = {}
    for one, other, cluster in zip(x, y, clusters, strict=True):
        totals[cluster] = totals.get(cluster, np.zeros(3)) + _products(one, other)
    found = clustered_statistic(np.array(list(totals.values())).reshape(-1, 3), _correlation)
    if found is None:
        return None
    value, low, high = (round(number, 4) for number in found)
    return {"mean": value, "ci95": [low, high], "n": sum(map(len, x)), "clusters": len(totals)}


def _products(x: Floats, y: Floats) -> Floats:
    """Sums of products of the centred values of one group: xy, xx, yy."""
    x, y = x - x.mean(), y - y.mean()
    return np.array([x @ y, x @ x, y @ y])


def _correlation(totals: Floats) -> Floats:
    """From totals (D, 3) to correlations (D,); NaN where a side does not vary."""
    xy, xx, yy = totals.T
    spread = np.sqrt(xx * yy)
    return np.where(spread > 0, xy / np.where(spread > 0, spread, 1), np.nan)
