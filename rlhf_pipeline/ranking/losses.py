"""The loss of ranked groups, as pure functions on tensors.

N comparisons of G groups stand one group after the other; `counts` (G,) says how many each group has, at least 1. A
group's loss is the mean over its comparisons (Ouyang et al. 2022, section 3.5: 1 / (K choose 2) times their sum), so a
prompt weighs the same whether two or nine completions were ranked. Left out: models, batches, metrics.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def comparison_losses(difference: Tensor, margin: Tensor, tied: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross-entropy of each comparison: (N,) score of the better completion less that of the worse.

    The chance that labellers prefer the better one is sigmoid(difference - margin) (Bradley and Terry 1952; the margin
    as in Touvron et al. 2023, section 3.2.2). They are taken to have said so with probability 1 - `label_smoothing`
    (Mitchell 2023, conservative DPO). A tie, `tied` (N,) True, is half a win for either side: up to a constant,
    Davidson's model of ties (1970) in the limit of rare ones, which needs no parameter.
    """
    target = torch.full_like(difference, 1.0 - label_smoothing).masked_fill(tied, 0.5)
    logit = difference - margin
    return -(target * logsigmoid(logit) + (1.0 - target) * logsigmoid(-logit))


def centring(better: Tensor, worse: Tensor) -> Tensor:
    """Compute what keeps scores near zero: (N,) squared sums of two scores (Eisenstein et al. 2023, equation 2)."""
    return (better + worse) ** 2


def group_means(values: Tensor, counts: Tensor) -> Tensor:
    """Average the values (N,) of each group: (G,)."""
    return group_sums(values, counts) / counts


def group_sums(values: Tensor, counts: Tensor) -> Tensor:
    """Add up the values (N,) of each group: (G,)."""
    return values.new_zeros(len(counts)).index_add(0, owners(counts), values)


def owners(counts: Tensor) -> Tensor:
    """Number the group of each of N members: (N,)."""
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
