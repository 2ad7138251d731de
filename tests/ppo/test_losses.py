"""The value loss and the health figures, by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlhf_pipeline.ppo.losses import clipped_sum, explained_variance, value_loss_sum

NAN = float("nan")


def doubles(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


MASK = torch.tensor([[True, True, True, False]])


def test_value_loss_by_hand() -> None:
    """Inside the clip: 0.5 * 0.1^2. Moved to the return: the clipped error 0.8. Moved away: the plain one, 3."""
    loss = value_loss_sum(
        doubles(0.1, 1.0, -1.0, NAN), doubles(0.0, 0.0, 0.0, NAN), doubles(0.2, 1.0, 2.0, NAN), MASK, 0.2
    )
    torch.testing.assert_close(loss, torch.tensor(0.5 * (0.01 + 0.64 + 9.0), dtype=torch.float64))


def test_a_clipped_value_has_no_gradient() -> None:
    values = doubles(0.1, 1.0, -1.0, NAN).requires_grad_()
    value_loss_sum(values, doubles(0.0, 0.0, 0.0, NAN), doubles(0.2, 1.0, 2.0, NAN), MASK, 0.2).backward()
    torch.testing.assert_close(values.grad, doubles(-0.1, 0.0, -3.0, 0.0))


def test_sums_over_micro_batches_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    values, old, returns = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator)
    mask = torch.rand(4, 5, generator=generator) < 0.7
    whole = value_loss_sum(values, old, returns, mask, 0.2)
    parts = sum(
        value_loss_sum(values[i : i + 1], old[i : i + 1], returns[i : i + 1], mask[i : i + 1], 0.2) for i in range(4)
    )
    torch.testing.assert_close(whole, torch.as_tensor(parts))


def test_explained_variance() -> None:
    returns = doubles(1.0, 2.0, 3.0, NAN)
    assert explained_variance(returns, returns, MASK) == 1
    assert explained_variance(doubles(7.0, 7.0, 7.0, NAN), returns, MASK) == 0
    assert explained_variance(doubles(3.0, 2.0, 1.0, NAN), returns, MASK) == -3
    assert explained_variance(returns, doubles(2.0, 2.0, 2.0, NAN), MASK) == 0


def test_clip_counts_only_tokens_whose_gradient_is_gone() -> None:
    log_ratio = torch.tensor([[math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5), math.log(1.1), NAN]])
    advantages = torch.tensor([[1.0, -1.0, -1.0, 1.0, 1.0, NAN]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    assert clipped_sum(log_ratio, advantages, mask, 0.2, 0.2) == 2
