"""Wins, ties and losses of one model against another on the same prompts; a tie counts half."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_pipeline.evaluate.statistics import Floats, clustered_share

SAME = 1e-9
"""Scores nearer than this are equal: what differs is the order of floating-point additions."""


def outcomes(ours: ArrayLike, theirs: ArrayLike) -> Floats:
    """Compare two scores of each prompt, (P,) each: 1 where ours is higher, 0.5 for a tie, 0 where it is lower."""
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return np.where(np.abs(difference) <= SAME, 0.5, (difference > 0).astype(np.float64))


def win_rate(ours: Floats, theirs: Floats, clusters: Sequence[Hashable]) -> dict[str, Any]:
    """Win rate with interval, and shares of win, tie and loss, of scores (P, K) against (P, K').

    Compared are the first samples, and under `mean_of_<K>` the means of K where both have K > 1. A model against
    itself has a rate of 0.5.
    """
    found = _compared(outcomes(ours[:, 0], theirs[:, 0]), clusters)
    samples = min(ours.shape[1], theirs.shape[1])
    if samples > 1:
        means = (scores[:, :samples].mean(axis=1) for scores in (ours, theirs))
        found[f"mean_of_{samples}"] = _compared(outcomes(*means), clusters)
    return found


def _compared(results: Floats, clusters: Sequence[Hashable]) -> dict[str, Any]:
    estimate = clustered_share(results, clusters)
    if estimate is None:
        raise ValueError("no prompts to compare on")
    shares = {name: round(float(np.mean(results == value)), 4) for name, value in _NAMED.items()}
    return {**estimate.to_dict(), **shares}


_NAMED = {"win": 1.0, "tie": 0.5, "loss": 0.0}
