"""Means with 95 % intervals, honest about few clusters. Pure numpy.

Answers about the same entity succeed or fail together, so what is drawn anew is the cluster, not the answer. With few
clusters the percentile bootstrap is too narrow; its quantiles are moved outwards to those of Student's t ("expanded
percentile interval", Hesterberg 2015, What Teachers Should Know About the Bootstrap).

Left out: tests of significance. Two intervals that are apart say enough here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
LEVEL = 0.95
CELLS = 4_000_000
"""Numbers held at once while clusters are drawn; more clusters are drawn in more pieces, with the same result."""

Floats = NDArray[np.float64]

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A mean, its interval, and what it rests on: `count` values in `clusters` clusters."""

    mean: float
    low: float
    high: float
    count: int
    clusters: int

    def to_dict(self, scale: float = 1.0, digits: int = 4) -> dict[str, Any]:
        """As JSON: mean and ci95 times `scale`."""
        low, high = (round(bound * scale, digits) for bound in (self.low, self.high))
        mean = round(self.mean * scale, digits)
        return {"mean": mean, "ci95": [low, high], "n": self.count, "clusters": self.clusters}


def clustered_mean(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, *, seed: int = 0, draws: int = DRAWS
) -> Estimate | None:
    """Estimate the mean of `values` (N,) by drawing whole clusters; NaN values do not count.

    `clusters`: N labels; without them every value is its own. Returns None where no value counts. A single cluster
    gives the widest interval there is: from the smallest value to the largest.
    """
    numbers = np.asarray(values, dtype=np.float64)
    labels = list(range(len(numbers))) if clusters is None else list(clusters)
    if len(labels) != len(numbers):
        raise ValueError(f"{len(numbers)} values but {len(labels)} cluster labels")
    counted = ~np.isnan(numbers)
    if not counted.any():
        return None
    sums, sizes = _per_cluster(numbers[counted], [label for label, ok in zip(labels, counted, strict=True) if ok])
    groups = len(sums)
    mean = float(sums.sum() / sizes.sum())
    if groups == 1:
        low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    else:
        low, high = _expanded_percentiles(np.stack([sums, sizes], axis=1), _ratio, seed, draws)
    return Estimate(mean, low, high, int(sizes.sum()), groups)


def clustered_statistic(
    parts: Floats, statistic: Callable[[Floats], Floats], *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float, float] | None:
    """Estimate a function of sums over clusters: `parts` (G, M), `statistic` from totals (D, M) to (D,).

    Returns the statistic of all clusters and its interval's ends, or None with fewer than two clusters or where the
    statistic is undefined (NaN); draws on which it is undefined do not count.
    """
    if len(parts) < 2:
        return None
    value = float(statistic(parts.sum(axis=0, keepdims=True))[0])
    return None if np.isnan(value) else (value, *_expanded_percentiles(parts, statistic, seed, draws))


def wilson(successes: float, count: int) -> Estimate | None:
    """Estimate a proportion with Wilson's score interval (1927), which stays inside [0, 1] and never has width 0."""
    if count == 0:
        return None
    z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5 / (1 + z * z / count)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), count, count)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t, by its expansion around the normal one (Abramowitz and Stegun 1964, 26.7.5).

    Within 1 % from 3 degrees of freedom on; below that too small.
    """
    z = _NORMAL.inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def _per_cluster(values: Floats, labels: list[Hashable]) -> tuple[Floats, Floats]:
    """Sums and sizes of the clusters, both (G,), in order of first appearance."""
    index = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    places = [index[label] for label in labels]
    return np.bincount(places, weights=values).astype(np.float64), np.bincount(places).astype(np.float64)


def _ratio(totals: Floats) -> Floats:
    return np.asarray(totals[:, 0] / totals[:, 1])


def _expanded_percentiles(
    parts: Floats, statistic: Callable[[Floats], Floats], seed: int, draws: int
) -> tuple[float, float]:
    groups, random = len(parts), np.random.default_rng(seed)
    chunk, even = max(1, CELLS // groups), np.full(groups, 1 / groups)
    sizes = [min(chunk, draws - start) for start in range(0, draws, chunk)]
    totals = np.concatenate([random.multinomial(groups, even, size=size) @ parts for size in sizes])  # (draws, M)
    t = student_quantile((1 - LEVEL) / 2, groups - 1)
    tail = _NORMAL.cdf((groups / (groups - 1)) ** 0.5 * t)
    low, high = np.nanquantile(statistic(totals), [tail, 1 - tail])
    return float(low), float(high)
