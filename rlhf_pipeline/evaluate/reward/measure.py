"""Put the measures together: what a data set is, what baselines get on it, and what a reward model's scores are worth.

Left out: computing scores (`scored`), reading and writing (`command`), wording (`report`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhf_pipeline.evaluate.reward.accuracy import ahead, estimate, in_order, pair_results, slice_labels, sliced
from rlhf_pipeline.evaluate.reward.agreement import between_labellers, with_labellers
from rlhf_pipeline.evaluate.reward.baselines import baseline_results, fit_length, fit_words
from rlhf_pipeline.evaluate.reward.calibration import calibration
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons
from rlhf_pipeline.evaluate.reward.distribution import summary
from rlhf_pipeline.evaluate.reward.length import within_correlation
from rlhf_pipeline.evaluate.statistics import Floats


def baselines(pairs: Comparisons, train: Comparisons | None) -> dict[str, Floats]:
    """Results (N,) of every baseline, fitted on `train` or cross-fitted; NaN where there is none."""
    fits = {"length": fit_length, "bag_of_words": fit_words}
    return {name: baseline_results(pairs, train, fit) for name, fit in fits.items()}


def describe(pairs: Comparisons, train: Comparisons | None, results: Mapping[str, Floats]) -> dict[str, Any]:
    """Count what a data set holds, and measure its labellers and the `baselines`, which need no reward model.

    `train` is what those were fitted on; `shared_prompts` counts prompts that are there too.
    """
    labels = slice_labels(pairs, pairs.lengths())
    seen = None if train is None else set(train.openings)
    return {
        "rankings": len(pairs.rankings),
        "prompts": len(set(pairs.openings)),
        "shared_prompts": None if seen is None else len(seen & set(pairs.openings)),
        "completions": len(pairs.answers),
        "unfinished": sum(not answer.finished for answer in pairs.answers),
        "pairs": len(pairs.better),
        "ties": len(pairs.ties),
        "same_text": pairs.same_text,
        "labellers": between_labellers(pairs),
        "rank_length_correlation": _with_length(pairs, _goodness(pairs)),
        "baselines": {name: _sliced(found, pairs, labels) for name, found in results.items()},
    }


def measure(pairs: Comparisons, scores: Floats, scale: float, baselines: Mapping[str, Floats]) -> dict[str, Any]:
    """Measure the scores (M,) of all completions; times `scale` their differences are as the model was trained on.

    `ahead_of` is the accuracy minus that of each of the `baselines`, pair by pair.
    """
    results = pair_results(scores, pairs)
    labels = slice_labels(pairs, pairs.lengths())
    difference = scores[pairs.better] - scores[pairs.worse]
    on_ties = np.abs(scores[pairs.ties[:, 0]] - scores[pairs.ties[:, 1]])
    return {
        **_sliced(results, pairs, labels),
        "ahead_of": {name: ahead(results, other, pairs.clusters) for name, other in baselines.items()},
        "calibration": calibration(difference * scale, pairs.clusters),
        "labellers": with_labellers(scores, pairs),
        "score_length_correlation": _with_length(pairs, [scores[places] for places in pairs.places]),
        "mean_difference": _mean(np.abs(difference)),
        "mean_difference_on_ties": _mean(on_ties),
        "scores": summary(scores),
    }


def _sliced(results: Floats, pairs: Comparisons, labels: dict[str, list[str]]) -> dict[str, Any]:
    """Accuracy, all of it and by every kind of slice."""
    return {
        "accuracy": estimate(results, pairs.clusters),
        "by": {kind: in_order(sliced(results, pairs.clusters, names), kind) for kind, names in labels.items()},
    }


def _with_length(pairs: Comparisons, values: list[Floats]) -> dict[str, Any] | None:
    lengths = pairs.lengths()
    return within_correlation(values, [lengths[places] for places in pairs.places], pairs.openings)


def _goodness(pairs: Comparisons) -> list[Floats]:
    """How good the labellers found every completion: its rank, turned round."""
    return [-np.array(ranking.ranks, dtype=np.float64) for ranking in pairs.rankings]


def _mean(values: Floats) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
