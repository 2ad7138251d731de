"""Sums, moments and whitening over the tokens that count.

Shapes: B completions, C completion tokens. A mask is True where a token counts; what stands elsewhere is never read.
Every statistic takes `reduce`, which sums a tensor over all ranks, so that a batch split over processes or
micro-batches has the statistics of the whole. Left out: per-row normalisation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sum a tensor over all ranks and give every rank the total."""

EPSILON = 1e-8


def one_rank(total: Tensor) -> Tensor:
    """Return the total as it is: the reduction of a single process."""
    return total


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum `x` (B, C) over the True positions of `mask` (B, C); a scalar."""
    return torch.where(mask, x, 0.0).sum()


def masked_mean(x: Tensor, mask: Tensor, reduce: Reduce = one_rank) -> Tensor:
    """Average `x` (B, C) over the True positions of `mask` (B, C) on all ranks; zero where nothing counts."""
    totals = reduce(torch.stack([masked_sum(x, mask), mask.sum().to(x.dtype)]))
    return totals[0] / totals[1].clamp(min=1)


def moments(x: Tensor, mask: Tensor, reduce: Reduce = one_rank) -> tuple[Tensor, Tensor]:
    """Return mean and population variance of `x` (B, C) over the True positions of `mask` on all ranks.

    Two passes, because the difference of squares loses half the digits.
    """
    mean = masked_mean(x, mask, reduce)
    return mean, masked_mean((x - mean).square(), mask, reduce)


def whiten(x: Tensor, mask: Tensor, *, center: bool, reduce: Reduce = one_rank) -> Tensor:
    """Scale `x` (B, C) to unit variance over the True positions of `mask`, and to mean zero if `center`.

    Without `center` the mean stays what it was (reward whitening, Huang et al. 2024). Zero outside the mask.
    """
    mean, variance = moments(x, mask, reduce)
    whitened = (x - mean) * torch.rsqrt(variance + EPSILON)
    if not center:
        whitened = whitened + mean
    return torch.where(mask, whitened, 0.0)


def last_index(mask: Tensor) -> Tensor:
    """Return the column of the last True of every row of `mask` (B, C); (B,), -1 where a row has none."""
    columns = torch.arange(mask.size(1), device=mask.device)
    return torch.where(mask, columns, -1).amax(dim=1)
