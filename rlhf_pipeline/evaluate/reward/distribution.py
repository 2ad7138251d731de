"""What EOS and the prompt alone are worth to a reward model: scores of the same completions in three forms.

A reward model that scores a completion without EOS as high as with it teaches a policy nothing about ending; one that
scores the prompt alone as high as an answer has learnt nothing about answers. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from rlhf_pipeline.evaluate.reward.accuracy import estimate
from rlhf_pipeline.evaluate.statistics import Floats
from rlhf_pipeline.evaluate.win_rate import outcomes

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def summary(scores: Floats) -> dict[str, Any] | None:
    """Mean, standard deviation and quantiles of scores (N,); None where there are none."""
    if not len(scores):
        return None
    quantiles = [round(float(value), 4) for value in np.quantile(scores, QUANTILES)]
    return {
        "n": len(scores),
        "mean": round(float(scores.mean()), 4),
        "sd": round(float(scores.std(ddof=1)), 4) if len(scores) > 1 else None,
        "quantiles": quantiles,
    }


def eos_and_prompt(
    with_eos: Floats, without_eos: Floats, prompt_alone: Floats, clusters: Sequence[Hashable]
) -> dict[str, Any]:
    """Compare the scores of N completions with EOS, without it, and of their prompts alone, all (N,)."""
    return {
        "with_eos": summary(with_eos),
        "without_eos": summary(without_eos),
        "prompt_alone": summary(prompt_alone),
        "share_higher_with_eos": estimate(outcomes(with_eos, without_eos), clusters),
        "share_above_prompt": estimate(outcomes(with_eos, prompt_alone), clusters),
    }
