"""The value loss and the figures that say whether PPO is healthy. (The clipped policy loss is TRL's.)

B completions, C completion tokens; a mask is True where a token counts. Sums, not means: the caller divides by the
token count of the whole minibatch, so that micro-batches and ranks add up to the same number however it is split.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_pipeline.ppo.masked import Reduce, masked_sum, moments, one_rank


def value_loss_sum(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange: float) -> Tensor:
    """Sum the clipped value loss over the True positions of `mask`; a scalar.

    0.5 * max((V - R)^2, (clip(V, V_old - cliprange, V_old + cliprange) - R)^2), all (B, C).
    Huang et al. 2024, detail "value function loss clipping"; from OpenAI's baselines.
    """
    values = torch.where(mask, values, 0.0)  # else what is not counted could still reach the gradient
    clipped = torch.maximum(torch.minimum(values, old_values + cliprange), old_values - cliprange)
    worse = torch.maximum((values - returns).square(), (clipped - returns).square())
    return 0.5 * masked_sum(worse, mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, reduce: Reduce = one_rank) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns) over all ranks; a scalar, at most 1.

    1: the critic foresees every return; 0: no better than a constant; below: worse. Zero where returns never vary.
    """
    _, variance = moments(returns, mask, reduce)
    _, unexplained = moments(returns - values, mask, reduce)
    return torch.where(variance > 0, 1 - unexplained / variance.clamp(min=torch.finfo(variance.dtype).tiny), 0.0)


def clipped_sum(log_ratio: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """Count the tokens whose policy gradient the clip removes; a scalar.

    That is ratio > 1 + high where the advantage is positive, or ratio < 1 - low where it is negative; all (B, C).
    """
    ratio = log_ratio.exp()
    clipped = ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))
    return masked_sum(clipped.to(log_ratio.dtype), mask)
