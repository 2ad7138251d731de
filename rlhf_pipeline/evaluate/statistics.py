"""Means with 95 % intervals, honest about few clusters. Pure numpy.

Answers about the same entity succeed or fail together, so what counts is the cluster, not the answer.

Means of unbounded values are bootstrapped, whole clusters drawn anew. With few clusters the percentile bootstrap is too
narrow; its quantiles are moved outwards to those of Student's t ("expanded percentile interval", Hesterberg 2015, What
Teachers Should Know About the Bootstrap).

Of values that are all alike a bootstrap says that they always will be. Shares know better, as their ends are known:
their interval is Wilson's (1927), with the variance between clusters in the place of p (1 - p), and Student's t.

Left out: tests of significance; of two scores on the same pairs, the interval of the difference says enough.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import hypot, inf, isfinite
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
    """A mean, its interval, and what it rests on: `count` values in `clusters` clusters.

    The ends are infinite where the values say nothing of how far the mean may be off.
    """

    mean: float
    low: float
    high: float
    count: int
    clusters: int

    def to_dict(self, scale: float = 1.0, digits: int = 4) -> dict[str, Any]:
        """As JSON: mean and ci95 times `scale`; ci95 is None where the ends are infinite."""
        ends = (self.low, self.high)
        bounds = [round(end * scale, digits) for end in ends] if all(map(isfinite, ends)) else None
        mean = round(self.mean * scale, digits)
        return {"mean": mean, "ci95": bounds, "n": self.count, "clusters": self.clusters}


def clustered_mean(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, *, seed: int = 0, draws: int = DRAWS
) -> Estimate | None:
    """Estimate the mean of `values` (N,) by drawing whole clusters; NaN values do not count.

    `clusters`: N labels; without them every value is its own. Returns None where no value counts. The interval of a
    single cluster is infinite: it does not say how others differ from it.
    """
    found = _per_cluster(values, clusters)
    if found is None:
        return None
    sums, sizes = found
    mean = float(sums.sum() / sizes.sum())
    if len(sums) == 1:
        return Estimate(mean, -inf, inf, int(sizes.sum()), 1)
    low, high = _expanded_percentiles(np.stack([sums, sizes], axis=1), _ratio, seed, draws)
    return Estimate(mean, low, high, int(sizes.sum()), len(sums))


def clustered_share(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, *, least: float = 0.0
) -> Estimate | None:
    """Estimate the mean of `values` (N,) that lie between `least` and 1; NaN values do not count.

    `clusters` as in `clustered_mean`. The interval stays inside the bounds and never has width 0; a single cluster's is
    all that lies between them.
    """
    found = _per_cluster(values, clusters)
    if found is None:
        return None
    sums, sizes = found
    count, groups = sizes.sum(), len(sums)
    mean = float(sums.sum() / count)
    if groups == 1:
        return Estimate(mean, least, 1.0, int(count), 1)
    low, high = _clustered_ends((sums - least * sizes) / (1 - least), sizes)
    return Estimate(mean, least + (1 - least) * low, least + (1 - least) * high, int(count), groups)


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
    share = successes / count
    low, high = _wilson_ends(share, share * (1 - share) / count, count, _NORMAL.inv_cdf((1 + LEVEL) / 2))
    return Estimate(share, low, high, count, count)


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


def _per_cluster(values: ArrayLike, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats] | None:
    """Sums and sizes of the clusters, both (G,), in order of first appearance; None where no value counts."""
    numbers = np.asarray(values, dtype=np.float64)
    labels = list(range(len(numbers))) if clusters is None else list(clusters)
    if len(labels) != len(numbers):
        raise ValueError(f"{len(numbers)} values but {len(labels)} cluster labels")
    counted = ~np.isnan(numbers)
    if not counted.any():
        return None
    kept = [label for label, ok in zip(labels, counted, strict=True) if ok]
    index = {label: number for number, label in enumerate(dict.fromkeys(kept))}
    places = [index[label] for label in kept]
    return np.bincount(places, weights=numbers[counted]).astype(np.float64), np.bincount(places).astype(np.float64)


def _wilson_ends(share: float, variance: float, count: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a `share` with that `variance`, of `count` values; `quantile` is the normal one, or t's."""
    squared, reach = quantile * quantile, quantile * hypot(count * variance**0.5, quantile / 2)
    low, high = ((count * share + (squared / 2 + end)) / (count + squared) for end in (-reach, reach))
    return max(0.0, float(low)), min(1.0, float(high))


def _clustered_ends(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """Wilson's interval from the sums (G,) of clusters of shares, and their sizes (G,).

    Its n is the effective number of values: what independent ones of the same variance would be, at least the
    effective number of clusters (Kish 1965), at most all. Where the values do not vary it is that least number.
    """
    count, groups = sizes.sum(), len(sums)
    share = sums.sum() / count
    variance = groups / (groups - 1) * np.square(sums - share * sizes).sum() / count**2
    fewest = count**2 / np.square(sizes).sum()
    effective = np.clip(share * (1 - share) / variance, fewest, count) if variance > 0 else fewest
    return _wilson_ends(share, variance, effective, student_quantile((1 + LEVEL) / 2, groups - 1))


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
