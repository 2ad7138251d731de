"""Whether the score difference of a pair says how sure one may be: sigmoid(difference) against how often it is right.

A reward model is trained as a Bradley-Terry model: it says that a labeller prefers the better completion with
probability sigmoid(score of better - score of worse). Pure numpy. Left out: recalibration.

ECE is that of Guo et al. 2017 (On Calibration of Modern Neural Networks) on the confidence max(p, 1 - p), in bins of
equal mass (Nixon et al. 2019, Measuring Calibration in Deep Learning). It is above 0 even for a perfectly calibrated
model, as bins are finite, so what such a model would get is given beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.evaluate.reward.accuracy import estimate
from rlhf_pipeline.evaluate.statistics import Floats, clustered_mean
from rlhf_pipeline.evaluate.win_rate import outcomes

BINS = 10
PAIRS_A_BIN = 10
"""With fewer than BINS * PAIRS_A_BIN pairs there are fewer bins."""
SIMULATED = 200


def calibration(difference: Floats, clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    """Measure the calibration of N differences (score of the better one - score of the worse one), not normalised.

    Returns brier and log_loss (means with intervals; a coin has 0.25 and 0.693), ece with `ece_if_calibrated`, and the
    bins of the reliability curve. None where there is no pair.
    """
    if not len(difference):
        return None
    confidence = sigmoid(np.abs(difference))
    right = outcomes(difference, np.zeros_like(difference))
    bins = equal_mass_bins(confidence, min(BINS, max(1, len(confidence) // PAIRS_A_BIN)))
    return {
        "ece": round(ece(confidence, right, bins), 4),
        "ece_if_calibrated": round(ece_if_calibrated(confidence, bins), 4),
        "brier": _mean((1 - sigmoid(difference)) ** 2, clusters),
        "log_loss": _mean(np.logaddexp(0, -difference), clusters),
        "mean_confidence": round(float(confidence.mean()), 4),
        "bins": [_bin(confidence, right, clusters, np.flatnonzero(bins == number)) for number in np.unique(bins)],
    }


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), (N,), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def equal_mass_bins(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Number the bin of every confidence, (N,): as equal in size as can be without parting equal values."""
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, confidence, side="left")


def ece(confidence: Floats, right: Floats, bins: NDArray[np.int64]) -> float:
    """Expected calibration error: |accuracy - mean confidence| of a bin, averaged over pairs. All (N,)."""
    gaps = np.bincount(bins, weights=right - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def ece_if_calibrated(confidence: Floats, bins: NDArray[np.int64]) -> float:
    """The ECE that chance alone gives: mean over draws in which every pair is right with its own confidence.

    Pairs are drawn as independent, so with several pairs a prompt the truth lies a little higher.
    """
    random = np.random.default_rng(0)
    drawn = (random.random(len(confidence)) < confidence for _ in range(SIMULATED))
    return float(np.mean([ece(confidence, right.astype(np.float64), bins) for right in drawn]))


def _mean(losses: Floats, clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    found = clustered_mean(losses, clusters)
    return None if found is None else found.to_dict()


def _bin(confidence: Floats, right: Floats, clusters: Sequence[Hashable], rows: NDArray[np.int64]) -> dict[str, Any]:
    accuracy = estimate(right[rows], [clusters[row] for row in rows])
    return {"confidence": round(float(confidence[rows].mean()), 4), "accuracy": accuracy}
